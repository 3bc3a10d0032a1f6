"""Texts and photos made to fill the memory, to take the day, or to lead elsewhere."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import answer, one_line
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, given, settings
from PIL import Image

from embedpress.analyze.sheet import photo_path
from embedpress.errors import FormatError, InputError
from embedpress.evaluate import beir
from embedpress.extract import images, rows
from embedpress.extract.images import list_images, load_image
from embedpress.extract.texts import open_texts


def photo(kind: str, side: int = 64, **options: Any) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def test_a_photo_of_thousands_of_scans(tmp_path: Path) -> None:
    content = photo("JPEG", 3000, progressive=True, quality=30)
    last = content.rindex(b"\xff\xda")
    many = content[:last] + content[last:-2] * 600 + content[-2:]
    (tmp_path / "x.jpg").write_bytes(many)
    code = "from embedpress.extract.images import load_image\nload_image(folder / 'x.jpg')"
    found = answer(code, tmp_path)
    assert "scans, more than 500, as no photo has" in found.said
    (tmp_path / "x.jpg").write_bytes(content)
    assert load_image(tmp_path / "x.jpg").size == (3000, 3000)


def test_scans_are_counted_across_blocks() -> None:
    content = b"\0" * (2**20 - 1) + b"\xff\xda" * (images.MAX_SCANS + 1)
    with pytest.raises(InputError, match="501 scans"):
        images._check_scans(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@given(damage=DAMAGE)
@settings(max_examples=25, deadline=None)
def test_any_photo_is_read_or_refused(kind: str, damage: Damage) -> None:
    with one_line():
        found = images.decode_image(io.BytesIO(damaged(photo(kind, 24), damage)))
        assert found.mode == "RGB"


def test_loops_pipes_and_devices_among_photos(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo("PNG"))
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    assert [image.id for image in list_images(tmp_path)] == ["a.png"]
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match="not a file"):
            load_image(tmp_path / name)
    with one_line():
        photo_path(tmp_path, "loop.png")
    for name in ("a\0b", "../x.png", "/etc/passwd"):
        with pytest.raises(InputError, match=r"leads out of|cannot be a path"):
            photo_path(tmp_path, name)


def test_a_record_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 1000)
    (tmp_path / "x.csv").write_text('id,text\n1,"' + "a line\n" * 500)
    with pytest.raises(FormatError, match="a record longer than 1000 bytes; is a quote not closed"):
        open_texts(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("id,text\n" + '1,"a\nb"\n' * 500)
    assert open_texts(tmp_path / "x.csv").count == 500


def test_a_header_of_many_columns(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(f"c{n}" for n in range(300_000)) + ",c299999\n")
    with pytest.raises(FormatError, match="over 1000 columns"):
        open_texts(tmp_path / "x.csv")


def test_packed_text_that_grows_as_none_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_SMALL", 1 << 20)
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"\n" * (8 << 20)))
    with pytest.raises(FormatError, match="over 200 times as large"):
        open_texts(tmp_path / "x.txt.gz")


@pytest.mark.parametrize("depth", [101, 500, 900, 960, 980, 990, 5000])
def test_values_nested_too_deeply(tmp_path: Path, depth: int) -> None:
    deep = '{"text": "a", "x": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "x.jsonl").write_text(deep)
    with pytest.raises(FormatError, match="not JSON"):
        open_texts(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", b'{"text": "a", "y": 1}\n{"text": "\\u00e9", "y": null}\n' * 3),
        (".csv", b'text,y\n"a, b",1\nc,2.5\n' * 1 + b"d,x\n" * 5),
        (".txt", "\ufeffone\ntwo\n\nthree\x00\n".encode()),
    ],
)
@given(damage=DAMAGE)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_read_or_refused(
    tmp_path: Path, suffix: str, content: bytes, damage: Damage
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(damaged(content, damage))
    with one_line():
        texts = open_texts(path)
        assert sum(len(chunk.texts) for _, chunk in texts.chunks(2)) == texts.count


def test_a_long_line_of_judgements(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    line = "a" * (beir.LONGEST_LINE + 1)
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + line)
    with pytest.raises(FormatError, match="a line of more than 100,000 characters"):
        beir.read_judgements(tmp_path)
