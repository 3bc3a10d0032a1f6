from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedpress.errors import InputError, UsageError
from embedpress.extract.images import contents_of, list_images, load_image, read_batches

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(path: Path) -> np.ndarray:
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def solid(mode: str, colour: object, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), ".png", (10, 20, 30)),
        ("RGB", (10, 20, 30), ".bmp", (10, 20, 30)),
        ("RGB", (10, 20, 30), ".ppm", (10, 20, 30)),
        ("RGB", (10, 20, 30), ".tif", (10, 20, 30)),
        ("L", 77, ".png", (77, 77, 77)),
        ("L", 77, ".jpg", (77, 77, 77)),
        ("1", 1, ".png", WHITE),
        ("LA", (0, 255), ".png", (0, 0, 0)),
        ("LA", (0, 0), ".png", WHITE),
        ("RGBA", (255, 0, 0, 255), ".png", RED),
        ("RGBA", (255, 0, 0, 0), ".png", WHITE),
        ("RGBA", (255, 0, 0, 51), ".png", (255, 204, 204)),
        ("RGBA", (0, 0, 255, 0), ".tif", WHITE),
        ("I;16", 65535, ".png", WHITE),
        ("I;16", 257 * 9, ".png", (9, 9, 9)),
        ("I;16", 257 * 9, ".tif", (9, 9, 9)),
        ("I;16B", 257 * 9, ".tif", (9, 9, 9)),
        ("I", 257 * 9, ".tif", (9, 9, 9)),
        ("F", 0.2, ".tif", (51, 51, 51)),
        ("F", 51.0, ".tif", (51, 51, 51)),
        ("CMYK", (0, 0, 0, 0), ".tif", WHITE),
        ("CMYK", (0, 255, 255, 0), ".tif", RED),
    ],
)
def test_every_mode_becomes_rgb(
    mode: str, colour: object, suffix: str, expected: tuple[int, ...], tmp_path: Path
) -> None:
    found = pixels(saved(tmp_path / f"a{suffix}", solid(mode, colour)))
    assert found.shape == (4, 6, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", solid("CMYK", (0, 255, 255, 0), (16, 16)), quality=100)
    assert np.abs(pixels(path).astype(int) - RED).max() < 12


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = solid("P", 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    opaque = pixels(saved(tmp_path / "a.png", image))
    assert tuple(opaque[0, 0]) == (0, 255, 0)
    assert tuple(opaque[0, 1]) == RED
    clear = pixels(saved(tmp_path / "b.png", image, transparency=1))
    assert tuple(clear[0, 0]) == WHITE
    assert tuple(clear[0, 1]) == RED
    gif = pixels(saved(tmp_path / "c.gif", image, transparency=0))
    assert tuple(gif[0, 1]) == WHITE


def test_a_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    image = solid("RGB", RED)
    image.putpixel((0, 0), (1, 2, 3))
    found = pixels(saved(tmp_path / "a.png", image, transparency=(1, 2, 3)))
    assert tuple(found[0, 0]) == WHITE
    assert tuple(found[1, 1]) == RED


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_the_first_frame_of_an_animation(suffix: str, tmp_path: Path) -> None:
    frames = [solid("RGB", colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert (pixels(path) == RED).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0], upright[0, 5], upright[3, 0] = RED, (0, 255, 0), (0, 0, 255)
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", stored, exif=exif)), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_spoil_the_photo(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", solid("RGB", RED), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert pixels(path).shape == (4, 6, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"])
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(noise))
    assert pixels(path).shape == (64, 64, 3)
    whole = path.read_bytes()
    for size in (len(whole) // 2, 20, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"^a\{suffix}: ") as caught:
            load_image(path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_reasons_are_the_same_in_every_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image at all")
    with pytest.raises(InputError, match=r"^a\.jpg: not an image of a known format$"):
        load_image(path)
    with pytest.raises(InputError, match=r"^b\.jpg: No such file or directory$"):
        load_image(tmp_path / "b.jpg")


def test_postscript_is_never_opened(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.eps", solid("RGB", RED)).rename(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="not an image of a known format"):
        load_image(path)


def test_bombs_are_refused_by_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", solid("1", 0, (100, 90)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    assert pixels(path).shape == (90, 100, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8999)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(InputError, match=r"100 x 90 is more than 8999 pixels"),
    ):
        load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="more pixels than"):
        load_image(path)


def test_a_header_of_a_huge_image_costs_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.bmp", solid("RGB", RED))
    data = bytearray(path.read_bytes())
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    path.write_bytes(data)
    with pytest.raises(InputError, match="more pixels than"):
        load_image(path)


def test_a_line_of_pixels_is_refused(tmp_path: Path) -> None:
    assert pixels(saved(tmp_path / "a.png", solid("L", 0, (400, 4)))).shape == (4, 400, 3)
    with pytest.raises(InputError, match="401 x 4 is too narrow"):
        load_image(saved(tmp_path / "a.png", solid("L", 0, (401, 4))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("b/2.JPG", "b/1.png", "a/deep/3.gif", "top.jpeg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        solid("RGB", RED).save(path, {"JPG": "JPEG"}.get(path.suffix[1:]))
    for name in ("b/notes.txt", "b/.hidden.jpg", ".cache/x.jpg", "b/script.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def test_a_folder_is_listed_in_order_with_labels(folder: Path) -> None:
    found = [(image.id, image.label) for image in list_images(folder)]
    assert found == [("a/deep/3.gif", "a"), ("b/1.png", "b"), ("b/2.JPG", "b"), ("top.jpeg", None)]
    assert all(image.path.is_file() for image in list_images(folder))


def test_links_do_not_lead_out(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    saved(outside / "secret.png", solid("RGB", RED))
    before = [image.id for image in list_images(folder)]
    (folder / "b" / "link.png").symlink_to(outside / "secret.png")
    (folder / "b" / "dead.png").symlink_to(folder / "nothing.png")
    (folder / "linked").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    assert [image.id for image in list_images(folder)] == before
    (folder / "c.png").symlink_to(folder / "b" / "1.png")
    assert [image.id for image in list_images(folder)] == sorted([*before, "c.png"])


def test_a_pipe_named_like_a_photo_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "pipe.png" not in [image.id for image in list_images(folder)]


def test_a_name_that_is_not_utf8_can_be_written_down(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        saved(folder / name, solid("RGB", RED))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert "caf\\xe9.png" in [image.id for image in list_images(folder)]


def test_nothing_to_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in it"):
        list_images(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        list_images(tmp_path / "none")


def test_reading_ahead_keeps_order_and_reasons(folder: Path) -> None:
    (folder / "b" / "1.png").write_bytes(b"broken")
    files = list_images(folder)
    batches = list(read_batches(files, lambda image: np.asarray(image, np.float32), 3, 2))
    contents = contents_of(files, 2)
    assert contents == contents_of(list_images(folder), 1)
    (folder / "b" / "1.png").write_bytes(b"Broken")
    assert contents != contents_of(files, 2)
    assert [[file.id for file in batch] for batch, _ in batches] == [
        ["a/deep/3.gif", "b/1.png", "b/2.JPG"],
        ["top.jpeg"],
    ]
    assert batches[0][1][1] == "not an image of a known format"
    assert isinstance(batches[0][1][0], np.ndarray)
