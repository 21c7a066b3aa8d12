"""Engine against reference on a photo: every tensor, then the boxes, must be equal."""

from __future__ import annotations

from collections.abc import Iterator
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
        for name, ours, right in self.pairs(self.letterbox(photo), min_score):
            if found := first_difference({name: ours}, {name: right}, [name]):
                return found
        return None

    def letterbox(self, photo: np.ndarray) -> np.ndarray:
        """The photo as the network sees it, (height, width, 3) uint8."""
        return letterbox(photo, self.session.info.height, self.session.info.width)[0]

    def pairs(self, image: np.ndarray, min_score: float = 0.25) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(name, the engine's values, the reference's) of every tensor in order of execution.

        The last is "boxes": rows of x1, y1, x2, y2, score, class.
        """
        self.session.run(image)
        outputs = {}
        for name, expected in steps(self.model.graph, image):
            yield name, self.session.tensor(name), expected
            if name in self.model.graph.outputs:
                outputs[name] = expected
        yield "boxes", _table(self.session.decode(min_score)), _table(decode(self.model, outputs, min_score))


def _table(found: Detections) -> np.ndarray:
    return np.column_stack([found.xyxy, found.score, found.class_id])
