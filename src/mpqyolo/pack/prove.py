"""The proof: the network folded in torch, the numpy reference and the engine agree at every tensor, exactly, and on the boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mpqyolo.core.errors import PackError
from mpqyolo.evaluate.parity import Difference, first_difference
from mpqyolo.evaluate.verify import Verifier
from mpqyolo.graph.ir import Model
from mpqyolo.pack.folded import FoldedModel


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
    folded, verifier = FoldedModel(lowered), Verifier(path)
    for number, photo in enumerate(photos):
        if found := _difference(folded, verifier, verifier.letterbox(photo)):
            backend, difference = found
            raise PackError(
                f"the proof failed on photo {number + 1}, between {backend} and the reference: {difference}; no file was written"
            )
        if progress:
            progress(number + 1, len(photos))
    return Proof(len(photos), len(verifier.model.graph.tensors), verifier.session.info.isa)


def _difference(folded: FoldedModel, verifier: Verifier, image: np.ndarray) -> tuple[str, Difference] | None:
    trained = folded.tensors(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous())
    for name, values, expected in verifier.pairs(image):
        ours = {"the engine": values}
        if name in trained:
            ours["the folded network"] = trained[name][0].numpy()
        elif name != "boxes" and name.rpartition(".")[0] not in trained:  # a split threshold's parts: their concat is compared
            raise PackError(f"the proof failed: no layer of the network gave tensor '{name}'; no file was written")
        for backend, found in ours.items():
            if difference := first_difference({name: found}, {name: expected}, [name]):
                return backend, difference
    return None
