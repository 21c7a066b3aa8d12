"""threshold: one comparison per channel makes bits of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def threshold(
    inputs: Sequence[np.ndarray], constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """x (C, H, W) int16 -> int8: x >= T[c] ? +1 : -1."""
    return (np.where(inputs[0] >= constants["threshold"][:, None, None], 1, -1).astype(np.int8),)
