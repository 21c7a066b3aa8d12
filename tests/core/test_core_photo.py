"""Photos of every mode become the same upright RGB; what is none says so in one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mpqyolo.core.errors import ImageError
from mpqyolo.core.photo import as_photo, read_photo

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3) * 2
GREY = PIXELS[:, :, 0]


@pytest.mark.parametrize(
    ("name", "image", "want"),
    [
        ("rgb.png", Image.fromarray(PIXELS), PIXELS),
        ("grey.png", Image.fromarray(GREY), GREY[:, :, None].repeat(3, 2)),
        ("rgba.png", Image.fromarray(np.dstack([PIXELS, GREY])), PIXELS),
        ("deep.png", Image.fromarray(GREY.astype(np.uint16) * 257), GREY[:, :, None].repeat(3, 2)),
        ("palette.gif", Image.fromarray(GREY).convert("P"), GREY[:, :, None].repeat(3, 2)),
        ("bits.png", Image.fromarray(GREY > 90), np.where(GREY > 90, 255, 0)[:, :, None].repeat(3, 2)),
        ("cmyk.tiff", Image.fromarray(PIXELS).convert("CMYK"), PIXELS),
    ],
)
def test_modes(name: str, image: Image.Image, want: np.ndarray, tmp_path: Path) -> None:
    image.save(tmp_path / name)
    for source in (tmp_path / name, str(tmp_path / name), image):
        got = as_photo(source)
        assert got.dtype == np.uint8 and np.array_equal(got, want)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_photo(tmp_path / "turned.png"), np.rot90(PIXELS, -1))


def test_arrays() -> None:
    assert as_photo(PIXELS) is not None and np.array_equal(as_photo(np.dstack([PIXELS, GREY])), PIXELS)
    assert np.array_equal(as_photo(GREY), as_photo(GREY[:, :, None]))
    for wrong in (PIXELS.astype(float), PIXELS[:0], PIXELS[None], 7):
        with pytest.raises(ImageError, match="is no photo"):
            as_photo(wrong)


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(deadline=None, max_examples=150)
def test_damaged_files_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("photo") / "x.jpg"
    Image.fromarray(PIXELS).save(path)
    good = path.read_bytes()
    path.write_bytes(good[:at] + noise)
    try:
        assert read_photo(path).ndim == 3
    except ImageError as fault:
        assert str(path) in str(fault) and "\n" not in str(fault)


def test_images_that_pillow_cannot_finish_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1500])
    closed = Image.open(tmp_path / "cut.jpg")
    closed.close()
    for image in (Image.open(tmp_path / "cut.jpg"), closed):
        with pytest.raises(ImageError, match="the PIL image: cannot be read"):
            as_photo(image)


def test_a_photo_that_is_too_wide(tmp_path: Path) -> None:
    wide = np.zeros((2, 65_537, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for source in (wide, wide.transpose(1, 0, 2), tmp_path / "wide.png", Image.fromarray(wide)):
        with pytest.raises(ImageError, match="at most 65536 a side"):
            as_photo(source)
    assert as_photo(wide[:, :-1]).shape == (2, 65_536, 3)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        read_photo(tmp_path / "none.jpg")
