"""Whether two data sets hold the same samples."""

import numpy as np

from mpqyolo.data.sample import Dataset


def same(a: Dataset, b: Dataset, flags: bool = True) -> None:
    assert a.classes == b.classes
    assert [item.path.name for item in a.items] == [item.path.name for item in b.items]
    for one, other in zip(a.items, b.items, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        assert one.label.tolist() == other.label.tolist()
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)
        if flags:
            assert one.difficult.tolist() == other.difficult.tolist()
            assert one.crowd.tolist() == other.crowd.tolist()
