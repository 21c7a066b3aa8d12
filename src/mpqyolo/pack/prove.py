"""The proof: the network folded in torch, the numpy reference and the engine agree at every tensor, exactly, and on the boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import PackError
from mpqyolo.core.image import letterbox
from mpqyolo.evaluate.parity import Difference, first_difference
from mpqyolo.format.reader import read_model
from mpqyolo.graph.ir import Model
from mpqyolo.pack.folded import FoldedModel
from mpqyolo.reference.decode import decode
from mpqyolo.reference.run import steps
from mpqyolo.runtime import session as engine


class Proof(NamedTuple):
    """What was compared: photos, tensors of each, and the instruction set that the engine used."""

    photos: int
    tensors: int
    isa: str


def prove(lowered: Model, path: Path, photos: Sequence[np.ndarray], progress: Callable[[int, int], None] | None = None) -> Proof:
    """Compare on these photos (h, w, 3) uint8 RGB. progress: called with (done, total).

    lowered: the graph before any pass; path: the file that was made of it. Three programs written apart, so that a fault of
    passes, writer, reader or one of the backends shows. Raises PackError that names the first tensor that differs, EngineError
    without an engine.
    """
    folded = FoldedModel(lowered)
    packed = read_model(path)
    session = engine.Session(engine.Model(path), keep_tensors=True)
    for number, photo in enumerate(photos):
        image, _ = letterbox(photo, session.info.height, session.info.width)
        if found := _difference(folded, packed, session, image):
            backends, difference = found
            raise PackError(f"the proof failed on photo {number + 1}, between {backends}: {difference}; no file was written")
        if progress:
            progress(number + 1, len(photos))
    return Proof(len(photos), len(packed.graph.tensors), session.info.isa)


def _difference(folded: FoldedModel, packed: Model, session: engine.Session, image: np.ndarray) -> tuple[str, Difference] | None:
    session.run(image)
    trained = folded.tensors(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous())
    outputs = {}
    for name, expected in steps(packed.graph, image):
        ours = {"the engine": session.tensor(name)}
        if name in trained:
            ours["the folded network"] = trained[name][0].numpy()
        elif name.rpartition(".")[0] not in trained:  # the parts of a split threshold: their concat is compared as a whole
            raise PackError(f"the proof failed: no layer of the network gave tensor '{name}'; no file was written")
        for backend, values in ours.items():
            if found := first_difference({name: values}, {name: expected}, [name]):
                return f"{backend} and the reference", found
        if name in packed.graph.outputs:
            outputs[name] = expected
    boxes = {"boxes": _table(session.decode())}
    found = first_difference(boxes, {"boxes": _table(decode(packed, outputs))}, ["boxes"])
    return ("the engine and the reference", found) if found else None


def _table(found: Detections) -> np.ndarray:
    """(n, 6): x1, y1, x2, y2, score, class."""
    return np.column_stack([found.xyxy, found.score, found.class_id])
