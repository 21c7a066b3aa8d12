"""threshold: one comparison per channel makes bits of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpqyolo.reference.numerics import bits


def threshold(
    inputs: Sequence[np.ndarray], constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """x (C, H, W) int16 -> int8 (C, H, W), or (2C, H, W) with a step."""
    return (bits(inputs[0], constants["threshold"], attributes.get("step", 0)),)
