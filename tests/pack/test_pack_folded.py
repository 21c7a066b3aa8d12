"""The folded network against the reference: random graphs, batches, other sizes, sums beyond float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zoo import make_zoo, noise

from mpqyolo.core.image import letterbox
from mpqyolo.detector.decode import TorchPredictor
from mpqyolo.evaluate.parity import first_difference
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Decode, Level, Model
from mpqyolo.graph.ops import resize
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.pack.folded import FoldedModel, folded
from mpqyolo.reference.decode import decode
from mpqyolo.reference.run import run


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_at_every_tensor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng, nodes=18)
    network = FoldedModel(model)
    images = [random_image(rng, model.graph) for _ in range(3)]
    found = network.tensors(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    for place, image in enumerate(images):
        expected = run(model.graph, image)
        assert first_difference(expected, {name: v[place].numpy() for name, v in found.items()}, model.graph.tensors) is None
        assert all(found[name].numpy().dtype == value.dtype for name, value in expected.items())


def test_another_size() -> None:
    rng = np.random.default_rng(3)
    model = random_model(rng, size=(32, 32))
    image = random_image(rng, resize(model.graph, 16, 40))
    found = FoldedModel(model).tensors(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert (
        first_difference(run(model.graph, image), {name: v[0].numpy() for name, v in found.items()}, model.graph.tensors) is None
    )


@pytest.mark.parametrize("shift", [16, 12, 1, 0, -3, -15])
def test_wide_sums(shift: int) -> None:
    """Sums beyond 2^24, where float32 rounds, and shifts to both ends."""
    rng = np.random.default_rng(3)
    build = Builder(8, 8, channels=3)
    weight = {
        "weight": ("w8", np.full((1500, 1, 1, 3), 127)),
        "multiplier": ("i16", np.full(1500, 32767)),
        "bias": ("i16", np.zeros(1500)),
    }
    (codes,) = build.add(
        "conv", "codes", ["image"], weight, {"u4": 1.0}, kernel=1, stride=1, pad=0, shift=3, fraction=10, outputs=("u4",)
    )
    constants = {
        "weight": ("w8", rng.integers(100, 128, (2, 7, 7, 1500))),
        "multiplier": ("i16", np.array([32767, -777])),
        "bias": ("i16", np.array([-32768, 100])),
    }
    (out,) = build.add("conv", "out", [codes], constants, {"s16": 1.0}, kernel=7, stride=1, pad=3, shift=shift, outputs=("s16",))
    graph = build.graph([out])
    image = rng.integers(200, 256, (8, 8, 3)).astype(np.uint8)
    model = Model(graph, Decode((Level(8, out, out),)), ("a",), {})
    assert FoldedModel(model).wide == {"out"}
    found = FoldedModel(model).tensors(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert first_difference(run(graph, image), {name: v[0].numpy() for name, v in found.items()}, graph.tensors) is None


def test_it_predicts_what_the_reference_detects() -> None:
    network = folded(make_zoo(), 64)
    model = Model(network.graph, Decode(network.levels), network.classes, {})
    photo = noise(1, 64)[0].permute(1, 2, 0).numpy()
    (found,) = TorchPredictor(network, 64, min_score=0.3)([photo])
    maps = run(model.graph, letterbox(photo, 64, 64)[0])
    expected = decode(model, maps, 0.3)
    assert len(found) == len(expected) > 0
    assert np.allclose(np.sort(found.score), np.sort(expected.score), atol=1e-5)
