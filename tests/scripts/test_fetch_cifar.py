from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedpress.extract.images import list_images

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two sheets of two photos each, as the package has them."""
    import fetch_cifar

    members = {"train_lables.json": b"[6, 9, 6]", "test_lables.json": b"[0]"}
    for number in (1, 2):
        data = io.BytesIO()
        sheet = PIXELS[2 * number - 2 : 2 * number].reshape(2, 1024, 3)
        Image.fromarray(sheet).save(data, "PNG")
        members[f"data_batch_{number}.png"] = data.getvalue()
    path = tmp_path / "cifar.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(fetch_cifar, "PER_SHEET", 2)
    monkeypatch.setattr(fetch_cifar, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return lambda output, count, archive=path: fetch_cifar.main(output, count, archive)


def test_photos_lie_in_a_folder_for_each_class(cifar: Any, tmp_path: Path) -> None:
    cifar(tmp_path / "photos", 4)
    names = ["airplane/00003.png", "frog/00000.png", "frog/00002.png", "truck/00001.png"]
    assert [photo.id for photo in list_images(tmp_path / "photos")] == names
    for name in names:
        with Image.open(tmp_path / "photos" / name) as photo:
            np.testing.assert_array_equal(np.asarray(photo), PIXELS[int(name[-9:-4])])


def test_a_finished_folder_is_kept_and_a_spoilt_photo_written_again(
    cifar: Any, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "photos"
    cifar(out, 3)
    assert len(list_images(out)) == 3
    capsys.readouterr()
    cifar(out, 3, tmp_path / "none.tgz")
    assert "nothing to do" in capsys.readouterr().out
    photo, kept = out / "frog" / "00000.png", out / "truck" / "00001.png"
    content, before = photo.read_bytes(), kept.stat()
    photo.write_bytes(content[:-1])
    cifar(out, 3)
    assert photo.read_bytes() == content
    assert kept.stat().st_ino == before.st_ino
    cifar(out, 4)
    assert len(list_images(out)) == 4
    listed = (out / "photos.sha256").read_text().splitlines()
    assert len(listed) == 5
    assert json.dumps(listed[-1]).endswith(', 4 photos"')
