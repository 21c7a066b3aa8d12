"""Engine against reference on a photo: every tensor, then the boxes, must be equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.core.image import letterbox
from mpqyolo.evaluate.parity import Difference, first_difference
from mpqyolo.format.reader import read_model
from mpqyolo.reference.decode import decode
from mpqyolo.reference.run import steps
from mpqyolo.runtime.session import Model, Session


class Verifier:
    """Compares the two on a packed file. image_size: (height, width) px, None: the file's. Raises MpqError."""

    def __init__(self, path: Path, image_size: tuple[int, int] | None = None, threads: int = 1) -> None:
        height, width = image_size or (None, None)
        self.model = read_model(path)
        self.session = Session(Model(path), height, width, threads, keep_tensors=True)

    def difference(self, photo: np.ndarray, min_score: float = 0.25) -> Difference | None:
        """The first tensor that differs, in order of execution, or "boxes"; None: all is equal. photo: (h, w, 3) uint8 RGB."""
        image, _ = letterbox(photo, self.session.info.height, self.session.info.width)
        self.session.run(image)
        outputs = {}
        for name, expected in steps(self.model.graph, image):
            if found := first_difference({name: self.session.tensor(name)}, {name: expected}, [name]):
                return found
            if name in self.model.graph.outputs:
                outputs[name] = expected
        ours, reference = self.session.decode(min_score), decode(self.model, outputs, min_score)
        return first_difference({"boxes": _table(ours)}, {"boxes": _table(reference)}, ["boxes"])


def _table(found: Detections) -> np.ndarray:
    """(n, 6): x1, y1, x2, y2, score, class."""
    return np.column_stack([found.xyxy, found.score, found.class_id])
