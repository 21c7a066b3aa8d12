"""A picture of a batch with its boxes: look at it before you train for hours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mpqyolo.core.detections import class_colour
from mpqyolo.data.loader import Batch


def draw_batch(batch: Batch, classes: Sequence[str], limit: int = 16) -> Image.Image:
    """The batch's first `limit` images in a grid, exactly as the network sees them, with boxes and class names."""
    images = batch.images[:limit].permute(0, 2, 3, 1).cpu().numpy()
    count, height, width = images.shape[:3]
    columns = math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height))
    targets = batch.targets.cpu().numpy()
    for place, pixels in enumerate(images):
        tile = Image.fromarray(pixels)
        pen = ImageDraw.Draw(tile)
        for _, label, *xyxy in targets[targets[:, 0] == place].tolist():
            colour = class_colour(int(label))
            x1, y1, x2, y2 = xyxy
            pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
            name = classes[int(label)]
            box = pen.textbbox((x1 + 2, y1 + 1), name)
            pen.rectangle(box, fill=colour)
            pen.text((x1 + 2, y1 + 1), name, fill=(0, 0, 0))
        sheet.paste(tile, (place % columns * width, place // columns * height))
    return sheet
