"""Photos as files, PIL images or arrays -> the upright (h, w, 3) uint8 RGB pixels that training and deployment both see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpqyolo.core.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image


SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"})
MAX_SIDE = 1 << 16  # px: docs/numerics.md, section 6


def read_photo(path: str | Path) -> np.ndarray:
    """Decode a file: (h, w, 3) uint8 RGB, EXIF rotation applied; only the first frame of several.

    Grey, palette, 16-bit, CMYK and RGBA become RGB (alpha is dropped). Raises ImageError, one line with the path.
    """
    from PIL import Image

    with _one_line(str(path)), Image.open(path) as image:
        return _from_pil(image)


def is_photo(path: Path) -> bool:
    """Whether the file's name says it is a photo; hidden ones (`._a.jpg`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def photos_under(folder: Path) -> list[Path]:
    """All photos in the folder and below it, sorted by name; hidden folders are left out."""
    found = (path for path in folder.rglob("*") if is_photo(path) and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever Pillow raises inside, as ImageError about `what`."""
    from PIL import Image

    try:
        yield
    except ImageError as fault:
        raise ImageError(f"{what}: {fault}") from None
    except FileNotFoundError:
        raise ImageError(f"{what}: there is no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{what}: too many pixels to decode safely; scale the photo down") from None
    except Exception as fault:  # Pillow's decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        words = str(fault).splitlines() or [type(fault).__name__]
        reason = "not a photo that Pillow can decode" if "cannot identify" in words[0] else words[0]
        raise ImageError(f"{what}: cannot be read: {reason}") from None


def from_pil(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode -> (h, w, 3) uint8 RGB, EXIF rotation applied; grey of more bits in 0..255. Raises ImageError."""
    with _one_line("the PIL image"):
        return _from_pil(image)


def _from_pil(image: Image.Image) -> np.ndarray:
    from PIL import ImageOps

    _check_size(*image.size)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return as_photo(_to_bytes(np.asarray(image)))
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"a photo of {width}x{height} px: at most {MAX_SIDE} a side; cut it up or scale it down")


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits, or of 0..1, 0..255 or 0..65535 in wider types, as uint8."""
    values = grey.astype(np.float64)
    top = float(values.max(initial=0.0))
    full = 65535.0 if grey.dtype.itemsize == 2 or top > 255 else 1.0 if grey.dtype.kind == "f" and top <= 1 else 255.0
    return np.clip(values * (255 / full), 0, 255).astype(np.uint8)


def as_photo(source: Any) -> np.ndarray:
    """A path, a PIL image or an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) uint8 -> (h, w, 3) uint8 RGB.

    Raises ImageError for anything else, or more than MAX_SIDE px a side; one line that says what was given.
    """
    if isinstance(source, (str, Path)):
        return read_photo(source)
    if isinstance(source, np.ndarray):
        if source.ndim > 1:
            _check_size(source.shape[1], source.shape[0])
        good = source.dtype == np.uint8 and source.size > 0
        if good and (source.ndim == 2 or (source.ndim == 3 and source.shape[2] == 1)):
            return np.repeat(source.reshape(*source.shape[:2], 1), 3, 2)
        if good and source.ndim == 3 and source.shape[2] in (3, 4):
            return source[:, :, :3]
        raise ImageError(
            f"an array of shape {source.shape} and type {source.dtype} is no photo; give (h, w, 3) uint8, RGB, with pixels"
        )
    if hasattr(source, "convert") and hasattr(source, "mode"):
        return from_pil(source)
    raise ImageError(f"a {type(source).__name__} is no photo; give a path, a PIL image or an (h, w, 3) uint8 array")
