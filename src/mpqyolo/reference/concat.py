"""concat: maps of one type one after the other along channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def concat(
    inputs: Sequence[np.ndarray], constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """Inputs (Ci, H, W) -> (sum of Ci, H, W), same type."""
    return (np.concatenate(inputs, axis=0),)
