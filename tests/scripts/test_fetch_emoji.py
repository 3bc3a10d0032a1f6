from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ten pictures, half of each seen through, and files that are none of them."""
    import fetch_emoji

    path = tmp_path / "emoji.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for number in range(10):
            pixels = np.zeros((8, 8, 4), np.uint8)
            pixels[:4] = (10 * number, 0, 0, 255)
            data = io.BytesIO()
            Image.fromarray(pixels, "RGBA").save(data, "PNG")
            add(archive, f"package/img/google/64/{number:02d}.png", data.getvalue())
        add(archive, "package/img/google/sheet.png", b"no picture of one emoji")
        add(archive, "package/img/google/64/readme.txt", b"none either")
    monkeypatch.setattr(fetch_emoji, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return lambda output, count, archive=path: fetch_emoji.main(output, count, archive)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_pictures_stand_on_white(emoji: Any, tmp_path: Path) -> None:
    emoji(tmp_path / "out", 10)
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert [picture.stem for picture in pictures] == [f"{number:02d}" for number in range(10)]
    for number, file in enumerate(pictures):
        with Image.open(file) as picture:
            assert picture.mode == "RGB"
            pixels = np.asarray(picture)
        assert (pixels[:4] == (10 * number, 0, 0)).all()
        assert (pixels[4:] == 255).all()


def test_few_are_drawn_the_same_each_time_and_a_finished_folder_is_kept(
    emoji: Any, tmp_path: Path, capsys: Any
) -> None:
    for name in ("a", "b"):
        emoji(tmp_path / name, 4)
    names = [sorted(p.name for p in (tmp_path / name).glob("*.png")) for name in ("a", "b")]
    assert names[0] == names[1]
    assert len(names[0]) == 4
    capsys.readouterr()
    emoji(tmp_path / "a", 4, tmp_path / "none.tgz")
    assert "nothing to do" in capsys.readouterr().out


def test_another_file_is_refused(emoji: Any, tmp_path: Path) -> None:
    from embedpress.errors import UsageError

    (tmp_path / "other.tgz").write_bytes(b"another")
    with pytest.raises(UsageError, match=r"other\.tgz is not emoji-datasource-google"):
        emoji(tmp_path / "out", 4, tmp_path / "other.tgz")
    assert not list((tmp_path / "out").glob("*.png"))
