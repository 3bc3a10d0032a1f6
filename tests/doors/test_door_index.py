"""Index folders whose checksums are right and whose files are not."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import one_line
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, given, settings
from samples import curved, write_embeddings

from embedpress.errors import EmbedpressError, FormatError
from embedpress.index.build import build_index
from embedpress.index.change import compact_index
from embedpress.index.faiss_door import check_layout
from embedpress.index.search import open_index
from embedpress.onnx.compress import compress
from embedpress.vectors import sha256_of

FACTORIES = ("Flat", "IVF12", "IVF12_HNSW8")
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.faiss"))


@pytest.fixture(scope="module")
def made(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small indexes of each kind: ``codes-Flat``, ``latents-IVF12``, ..."""
    home = tmp_path_factory.mktemp("made")
    write_embeddings(home / "emb", curved(60, seed=3), ids=[f"id{n}" for n in range(60)])
    for what in ("codes", "latents"):
        compress(home / "emb", saved(), home / what, what=what, num_threads=1)
        for factory in FACTORIES:
            out = home / f"{what}-{factory}"
            options: dict[str, Any] = {"rerank": "int8", "vectors": home / "emb"}
            build_index(home / what, saved(), out, factory=factory, num_threads=1, **options)
    return home


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "codes-Flat", tmp_path / "copy"))


def restamped(copy: Path, **changes: Any) -> None:
    manifest = {**json.loads((copy / "manifest.json").read_text()), **changes}
    files = manifest["files"].values()
    manifest["sha256"] = {name: sha256_of(copy / name) for name in files}
    (copy / "manifest.json").write_text(json.dumps(manifest))


def use(copy: Path, model: Path) -> None:
    index = open_index(copy, model, num_threads=1)
    index.records(index.search(curved(3), 5))


@pytest.mark.parametrize("what", ["codes", "latents"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_what_is_built_is_let_in(made: Path, what: str, factory: str) -> None:
    check_layout(made / f"{what}-{factory}" / "index.faiss")


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_found_cases_are_refused(file: Path) -> None:
    with pytest.raises(FormatError, match="is not an index FAISS can read"):
        check_layout(file)


@pytest.mark.parametrize("factory", FACTORIES)
@given(damage=DAMAGE)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_passes_the_door_or_not(made: Path, tmp_path: Path, factory: str, damage: Damage):
    sound = (made / f"codes-{factory}" / "index.faiss").read_bytes()
    path = tmp_path / "x.faiss"
    path.write_bytes(damaged(sound, damage))
    with one_line():
        check_layout(path)
        assert path.stat().st_size == len(sound)


@pytest.mark.parametrize("at", ["ntotal", "entry", "top", "link", "lists"])
def test_forged_numbers(made: Path, tmp_path: Path, at: str) -> None:
    data = bytearray((made / "codes-IVF12_HNSW8" / "index.faiss").read_bytes())
    graph = data.index(b"IHNs") + 37
    ends = [graph]
    for width in (8, 4, 4, 8, 4):
        ends.append(ends[-1] + 8 + width * int.from_bytes(data[ends[-1] : ends[-1] + 8], "little"))
    place = {
        "ntotal": 8,
        "entry": ends[-1],
        "top": ends[-1] + 4,
        "link": ends[-2] + 8,
        "lists": data.index(b"ilar") + 4,
    }[at]
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "x.faiss").write_bytes(data)
    with pytest.raises(FormatError, match="is not an index FAISS can read"):
        check_layout(tmp_path / "x.faiss")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("boom"),)


def deleted_files() -> dict[str, bytes]:
    zipped, huge = io.BytesIO(), io.BytesIO()
    np.savez(zipped, x=np.ones(3))
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(huge, header)
    return {"zip": zipped.getvalue(), "huge": huge.getvalue(), "pickle": pickle.dumps(Bomb())}


@pytest.mark.parametrize("kind", ["zip", "huge", "pickle"])
def test_a_list_of_deleted_rows_that_is_none(
    copy: Path, saved: Callable[..., Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    files = json.loads((copy / "manifest.json").read_text())["files"]
    (copy / "deleted.npy").write_bytes(deleted_files()[kind])
    restamped(copy, deleted=1, count=59, files={**files, "deleted": "deleted.npy"})
    for read in (lambda: use(copy, saved()), lambda: compact_index(copy)):
        with pytest.raises(FormatError):
            read()
    assert not (copy / "boom").exists()


def test_a_count_beyond_the_file(copy: Path) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    (copy / "deleted.npy").write_bytes(b"")
    restamped(copy, deleted=1, count=10**15, files={**files, "deleted": "deleted.npy"})
    with pytest.raises(FormatError, match="holds fewer than"):
        compact_index(copy)


def test_a_rerank_tier_of_other_vectors(copy: Path, saved: Callable[..., Path]) -> None:
    np.save(copy / "rerank.npy", np.ones((60, 31), np.int8))
    restamped(copy, rerank_dim=31)
    with pytest.raises(FormatError, match="rerank tier has 31 dimensions"):
        use(copy, saved())


@pytest.mark.parametrize("name", ["index.faiss", "ids.parquet", "rerank.npy"])
def test_links_do_not_lead_out(copy: Path, saved: Callable[..., Path], name: str) -> None:
    (copy / name).rename(copy.parent / name)
    (copy / name).symlink_to(copy.parent / name)
    with pytest.raises(FormatError, match="a link that leads out of its folder"):
        use(copy, saved())
    # Within the folder, and the folder itself: no harm.
    (copy / name).unlink()
    (copy.parent / name).rename(copy / "inside")
    (copy / name).symlink_to("inside")
    (copy.parent / "link").symlink_to(copy)
    use(copy.parent / "link", saved())


def test_a_size_that_is_no_number(copy: Path, saved: Callable[..., Path]) -> None:
    restamped(copy, bytes_per_vector=float("nan"))
    with pytest.raises(EmbedpressError, match="NaN is not JSON"):
        use(copy, saved())
