"""Two backends, one graph: where do they differ first?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """The first tensor that differs: how many of its elements, the first of them, and its value in a and in b.

    `reason` says it in words where there are no two values to compare (a missing tensor, another shape).
    """

    name: str
    count: int
    index: tuple[int, ...] = ()
    a: float = 0
    b: float = 0
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name}: {self.reason}"
        return f"{self.name}: {self.count} elements differ, first at {list(self.index)}: {self.a:g} and {self.b:g}"


def first_difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], order: Iterable[str]) -> Difference | None:
    """Compare tensors by name, in `order` (of execution: then the first difference is the culprit), exactly.

    Types may differ, values may not. NaN equals NaN. None if all tensors in `order` are equal.
    """
    for name in order:
        if name not in a or name not in b:
            return Difference(name, 0, reason=f"only in the {'second' if name in b else 'first' if name in a else 'order'}")
        x, y = np.asarray(a[name]), np.asarray(b[name])
        if x.shape != y.shape:
            return Difference(name, max(x.size, y.size), reason=f"shape {list(x.shape)} and {list(y.shape)}")
        wrong = (x != y) & ~((x != x) & (y != y))
        if wrong.any():
            index = tuple(int(k) for k in np.argwhere(wrong)[0])
            return Difference(name, int(wrong.sum()), index, x[index].item(), y[index].item())
    return None
