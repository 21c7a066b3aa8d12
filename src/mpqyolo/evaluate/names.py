"""Which class of one list is which of another: detectors and data sets spell the same things differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpqyolo.core.detections import Detections

# COCO's spelling for VOC's and other usual ones; compared in lower case without spaces, '-' and '_'.
_SAME = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "tvset": "tv",
    "bike": "bicycle",
    "pedestrian": "person",
    "people": "person",
    "cellphone": "mobilephone",
    "hairdryer": "hairdrier",
}


def _plain(name: str) -> str:
    plain = "".join(char for char in name.lower() if char not in " -_")
    return _SAME.get(plain, plain)


def class_map(source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """(len(source),) int64: the index in `target` of each name in `source`, -1 where it has none."""
    index = {_plain(name): label for label, name in reversed(list(enumerate(target)))}
    exact = {name: label for label, name in enumerate(target)}
    return np.array([exact.get(name, index.get(_plain(name), -1)) for name in source], np.int64)


def rename(found: Detections, mapping: np.ndarray, names: tuple[str, ...]) -> Detections:
    """The detections under `mapping` (from class_map, to `names`), without those that have no counterpart."""
    label = mapping[found.class_id]
    kept = found[label >= 0]
    return Detections(kept.xyxy, kept.score, label[label >= 0].astype(np.int32), names, found.size)
