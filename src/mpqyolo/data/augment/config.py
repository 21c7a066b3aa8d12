"""What augmentation does, as switches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpqyolo.core.errors import ConfigError


@dataclass(frozen=True)
class Augment:
    """Probabilities are 0..1, the rest are half-widths of uniform distributions; 0 turns a switch off.

    mosaic: four photos in one (Bochkovskiy et al., 2020, arXiv:2004.10934). mixup: blend with a second sample (1710.09412).
    scale: 0.5 draws sizes from 0.5 to 1.5. translate: fraction of the input's sides. flip, flip_vertical: mirror.
    hsv_h, hsv_s, hsv_v: relative change of hue, saturation, value.
    min_side (pixels of the input) and min_visible (fraction of its area) decide which clipped boxes stay.
    """

    mosaic: float = 1.0
    mixup: float = 0.0
    scale: float = 0.5
    translate: float = 0.1
    flip: float = 0.5
    flip_vertical: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    min_side: float = 2.0
    min_visible: float = 0.2

    def __post_init__(self) -> None:
        """Raises ConfigError for a number that makes no sense."""
        for name, value in vars(self).items():
            most = math.nextafter(1, 0) if name == "scale" else 10 if name in ("translate", "min_side") else 1
            if not 0 <= value <= most:
                below = "below 1" if name == "scale" else f"at most {most}"
                raise ConfigError(f"augment.{name} = {value}: must be from 0 on and {below}")

    @staticmethod
    def none() -> Augment:
        """No augmentation: photos are letterboxed exactly as in deployment."""
        return Augment(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    @property
    def is_none(self) -> bool:
        """Whether pixels and boxes stay as deployment sees them."""
        return replace(self, min_side=0, min_visible=0) == Augment.none()
