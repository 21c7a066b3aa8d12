"""Detections: what every detector returns."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpqyolo.core.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL import Image


def class_colour(class_id: int) -> tuple[int, int, int]:
    """RGB of a class: always the same, neighbours far apart (steps of the golden ratio round the hues)."""
    hue = (0.02 + class_id * 0.618034) % 1.0
    lightness = (0.60, 0.46, 0.72)[class_id // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass
class Detections:
    """Boxes of one photo, best first.

    xyxy: (n, 4) float32, pixels of the photo. score: (n,) float32 in 0..1. class_id: (n,) int32.
    names: class names, where known. size: (width, height) of the photo, where known.
    """

    xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    class_id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, index: Any) -> Detections:
        """The chosen boxes (number, slice, mask or index array)."""
        if isinstance(index, (int, np.integer)):
            index = [index]
        return Detections(self.xyxy[index], self.score[index], self.class_id[index], self.names, self.size)

    def __iter__(self) -> Iterator[Detections]:
        """One Detections of one box each."""
        return (self[i] for i in range(len(self)))

    def name(self, class_id: int) -> str:
        """The class's name, or its number where names are not known."""
        return self.names[class_id] if 0 <= class_id < len(self.names) else str(class_id)

    def to_dict(self) -> list[dict[str, Any]]:
        """One plain dictionary a box: class_id, class_name, score, xyxy. Ready for JSON."""
        return [
            {"class_id": int(c), "class_name": self.name(int(c)), "score": float(s), "xyxy": [float(v) for v in box]}
            for box, s, c in zip(self.xyxy, self.score, self.class_id, strict=True)
        ]

    def to_coco(self, image_id: int, category_ids: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id (`category_ids[class_id]`, or class_id), bbox as x, y, width, height, score."""
        return [
            {
                "image_id": image_id,
                "category_id": int(c) if category_ids is None else category_ids[int(c)],
                "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                "score": float(s),
            }
            for (x1, y1, x2, y2), s, c in zip(self.xyxy, self.score, self.class_id, strict=True)
        ]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`. Raises ConfigError if that package is not installed."""
        try:
            import supervision
        except ImportError:
            raise ConfigError("to_supervision needs the package supervision: pip install 'mpqyolo[vision]'") from None
        names = np.array([self.name(int(c)) for c in self.class_id], dtype=object if not len(self) else None)
        boxes = {"xyxy": self.xyxy, "confidence": self.score, "class_id": self.class_id.astype(int)}
        return supervision.Detections(**boxes, data={"class_name": names})

    def draw(self, image: Image.Image | np.ndarray) -> Image.Image:
        """A copy of the photo (PIL image, or (h, w, 3) uint8) with boxes and labels; the best box lies on top."""
        from PIL import Image, ImageDraw, ImageFont

        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        picture = picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
        pen = ImageDraw.Draw(picture)
        line = max(2, round(sum(picture.size) / 500))
        font = ImageFont.load_default(size=max(10, round(sum(picture.size) / 90)))
        for i in reversed(range(len(self))):
            class_id = int(self.class_id[i])
            colour = class_colour(class_id)
            x1, y1, x2, y2 = (float(v) for v in self.xyxy[i])
            pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
            text = f"{self.name(class_id)} {self.score[i]:.2f}"
            wide, tall, margin = pen.textlength(text, font=font), pen.textbbox((0, 0), "Ágj", font=font)[3] + 1, line
            # Above the box where there is room, else inside it; never off the picture.
            top = y1 - tall if y1 >= tall else y1
            left = max(0.0, min(x1, picture.width - wide - 2 * margin))
            pen.rectangle((left, top, left + wide + 2 * margin, top + tall), fill=colour)
            bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
            pen.text((left + margin, top), text, fill="black" if bright else "white", font=font)
        return picture

    def save(self, path: str | Path, image: Image.Image | np.ndarray) -> Path:
        """Writes `draw(image)` to the path and returns it. Raises ImageError if it cannot be written."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.draw(image).save(path, quality=92)
        except (OSError, ValueError) as fault:
            raise ImageError(f"{path}: cannot be written: {fault}") from None
        return path
