"""The graph computes what the trained layers compute: layer by layer, each on the integers that the graph gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo import Zoo, make_zoo, noise, quantise

from mpqyolo.core.errors import PackError
from mpqyolo.core.image import letterbox
from mpqyolo.data.sample import Dataset
from mpqyolo.detector.blocks import StreamConv
from mpqyolo.detector.calls import trace
from mpqyolo.detector.decode import TorchPredictor
from mpqyolo.detector.model import build_model
from mpqyolo.evaluate import evaluate
from mpqyolo.evaluate.parity import first_difference
from mpqyolo.format.writer import dumps
from mpqyolo.graph.ir import Model
from mpqyolo.pack.folded import FoldedModel, folded
from mpqyolo.pack.lower import distinct, lower
from mpqyolo.pack.pack import graph_of
from mpqyolo.pack.passes import optimise
from mpqyolo.quantize.apply import handles
from mpqyolo.quantize.lsq import LsqActivation
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.reference.run import run
from mpqyolo.train.ema import reestimate_bn

POLICIES = ("default", "paper", "w1a2", "w4a4")
LN2 = float(np.log(2))


def worst_steps(model: nn.Module, images: Tensor) -> dict[str, tuple[str, float, float]]:
    """By tensor: dtype, greatest difference of layer and graph in steps, share of numbers that differ by half a step or more.

    Every layer gets the graph's own maps as inputs, and the graph's bits or codes of the stream, so that errors do not add up.
    """
    side = images.shape[-1]
    integers = folded(model, side)
    graph, values = integers.graph, integers.tensors(images)
    found: dict[str, tuple[str, float, float]] = {}
    real = {0: images}

    def compare(name: str, y: Tensor, unit: float, dtype: str = "") -> None:
        wanted = y.double() / unit
        steps = (values[name].double() - wanted).abs()
        steps[wanted.abs() > 32000] = 0  # the graph saturates before it adds the residual, too
        found[name] = dtype or graph.tensors[name].dtype, float(steps.max()), float((steps >= 0.5).double().mean())

    def watch(name: str):
        def hook(module: Quantiser, inputs: tuple[Tensor, int], y: Tensor) -> Tensor:
            border, unit, dtype = inputs[1], graph.tensors[name].scale, ""
            if isinstance(module, LsqActivation) and module.bits <= 2:  # odd values are the codes 0, 1 or 0 to 3
                upper, lower = values[name].chunk(2, 1) if module.bits == 2 else (values[name], 0)
                values[name] = (2 * upper + lower + 3) // 2 if module.bits == 2 else (upper + 1) // 2
                unit, dtype = float(module.scale.detach()), f"{module.bits} bits"
            compare(name, y[..., border : y.shape[2] - border, border : y.shape[3] - border], unit, dtype)
            return functional.pad(values[name].to(y.dtype) * unit, (border,) * 4, value=module.pad_value())

        return hook

    for call in distinct(trace(model).calls):
        layer, hooks = call.module, []
        if isinstance(layer, StreamConv) and layer.conv.input_quantiser is not None:
            kind = "threshold" if layer.conv.input_quantiser.bits <= 2 else "requantise"
            hooks.append(layer.conv.input_quantiser.register_forward_hook(watch(f"{call.name}.{kind}")))
        inputs = [real[value] for value in call.inputs]
        with torch.no_grad():
            y = layer(inputs) if type(layer).__name__ == "Concat" else layer(*inputs)
        for hook in hooks:
            hook.remove()
        if call.name in values:
            scale = graph.tensors[call.name].scale
            compare(call.name, y, scale * LN2 if call.name.startswith("predict") else scale)
            real[call.output] = values[call.name].float() * scale
        else:  # pixels that are the image itself
            real[call.output] = y
    return found


def check(found: dict[str, tuple[str, float, float]]) -> None:
    for name, (dtype, worst, share) in found.items():
        if dtype == "b1":
            assert worst == 0, name
        elif dtype == "1 bits":  # rounding in training's own formula
            assert share < 1e-4, (name, worst, share)
        elif dtype == "2 bits":  # an edge is off by a step of the stream at most
            assert worst <= 1.01 and share < 0.02, (name, worst, share)
        elif dtype == "u4":
            # One code off where a sum lies next to a code's edge. A stream has some 50 steps a code: an edge is off by up to one.
            assert worst <= 1.01 and share < (0.03 if name.endswith(("code3", "code4", "code5", "requantise")) else 0.02), name
        else:
            # The layer rounds once; the graph rounds its product, bias, average, gain, slope and shift, half a step each.
            assert worst <= (1.6 if name.startswith("predict") else 3), (name, worst)


@pytest.mark.parametrize("bits", POLICIES)
def test_every_kind_of_layer(bits: str) -> None:
    for seed in range(3):
        found = worst_steps(make_zoo(bits, seed), noise(4, seed=seed + 10))
        assert len(found) > 25
        check(found)


@pytest.mark.parametrize(
    ("family", "options", "bits"),
    [
        ("mpq", {"shortcut": "gain", "act": "relu"}, "default"),
        ("mpq", {"shortcut": "none", "act": "none"}, "paper"),
        ("paper", {}, "paper"),
        ("paper", {"shortcut": "none", "act": "none", "stem": "3x3"}, "paper"),
        ("paper", {"shortcut": "plain", "act": "relu"}, "default"),
        ("paper", {}, "w4a4"),
        ("paper", {}, "w1a2"),
        ("mpq", {}, "w1a4"),
    ],
)
def test_every_family(family: str, options: dict[str, str], bits: str) -> None:
    torch.manual_seed(0)
    model = build_model(family, "n", ("a", "b"), **options).eval()
    quantise(model, bits)
    check(worst_steps(model, noise(4, seed=3)))
    dumps(graph_of(model, (64, 96)))


@pytest.mark.parametrize("bits", POLICIES)
def test_a_trained_network(bits: str, trained: dict[str, Any], squares: Dataset) -> None:
    images = np.stack([letterbox(squares.read(i), 64, 64)[0] for i in range(8)])
    check(worst_steps(trained[bits].model, torch.from_numpy(images).permute(0, 3, 1, 2)))


@pytest.mark.parametrize("bits", POLICIES)
def test_a_trained_network_scores_as_in_training(bits: str, trained: dict[str, Any], squares: Dataset) -> None:
    """Maps differ: one step of the stream turns some bits, these turn others. What is found does not."""
    model = trained[bits].model
    before, after = (evaluate(TorchPredictor(m, 64), squares, 32) for m in (model, folded(model, 64)))
    assert before.map50 > 0.5 and abs(after.map50 - before.map50) < 0.08 and abs(after.map - before.map) < 0.08


@pytest.mark.parametrize("bits", POLICIES)
def test_fused_and_plain_graph_reference_and_folded_are_equal(bits: str) -> None:
    model, image = make_zoo(bits), noise(1, 96)
    graph, decode = lower(model, 96, 96)
    fused = optimise(graph)
    a = run(graph, image[0].permute(1, 2, 0).numpy())
    b = run(fused, image[0].permute(1, 2, 0).numpy())
    c = {name: v[0].numpy() for name, v in FoldedModel(Model(graph, decode, model.classes, {})).tensors(image).items()}
    assert first_difference(a, c, graph.tensors) is None
    assert first_difference(a, b, (name for name in fused.tensors if name in a)) is None
    ops = [node.op for node in fused.nodes]
    if bits != "w4a4":
        assert len(ops) < len(graph.nodes)
        assert ops.count("threshold") < [node.op for node in graph.nodes].count("threshold")
    if bits in ("default", "paper"):
        # Both branches of one stream, and what reads their concat, ask the convolutions themselves for bits.
        both = next(node for node in fused.nodes if node.name == "backbone.left")
        assert "b1" in both.attributes["outputs"]


def test_names_are_those_of_the_layers() -> None:
    model = make_zoo()
    graph, decode = lower(model, 64, 96)
    layers = {name for name, _ in model.named_modules()} | {"neck.pool.2"}  # it is called twice
    assert {node.name for node in graph.nodes if node.op in ("conv", "maxpool", "upsample2", "concat")} <= layers
    derived = {node.name for node in graph.nodes} - layers
    assert all(name.endswith((".threshold", ".avgpool")) and name.rpartition(".")[0] in layers for name in derived)
    assert graph.tensors["predict.logit.0"].shape == (2, 8, 12) and [v.stride for v in decode.levels] == [8, 16, 32]
    assert graph.tensors["neck.code4"].scale == graph.tensors["neck.up"].scale == graph.tensors["neck.join"].scale


def test_lowering_leaves_the_network_as_it_is() -> None:
    model = make_zoo()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lower(model.train(), 64, 64)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def spoiled(what: str) -> Zoo:
    model = make_zoo()
    conv, block = model.neck.mix.conv, model.backbone.fold
    with torch.no_grad():
        if what == "strength":
            conv.weight_quantiser.set_strength(0.5)
        elif what == "float":
            conv.weight_quantiser = None
        elif what == "activation":
            model.neck.mix.code.quantiser.bits_buffer.fill_(8)
        elif what == "fresh":
            conv.weight_quantiser.initialised.fill_(False)
        elif what == "silu":
            block.act = nn.SiLU()
        elif what == "bias":
            block.bn.bias.fill_(1000.0)
        elif what == "nan":
            conv.weight[0, 0, 0, 0] = float("nan")
        elif what == "nan norm":
            block.bn.running_mean[0] = float("nan")
        elif what == "no scale":
            model.neck.mix.code.quantiser.log_scale.fill_(-200.0)
        elif what == "threshold":
            block.conv.input_quantiser.shift.fill_(1000.0)
        elif what == "gain":
            block.bn.weight.copy_(torch.logspace(-3, 3, 16))
        elif what == "norm":
            block.bn = nn.GroupNorm(4, 16)
    return model


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("strength", "layer 'neck.mix': its weights are quantised to 50% only"),
        ("float", "layer 'neck.mix': its weights are float"),
        ("activation", "layer 'neck.mix': its activations have 8 bits"),
        ("fresh", "'neck.mix.conv.weight_quantiser': .* never saw data"),
        ("silu", "layer 'backbone.fold': the activation SiLU has no integer form"),
        ("bias", "layer 'backbone.fold': its bias reaches 25"),
        ("nan", "layer 'neck.mix': its weights are not finite"),
        ("nan norm", "layer 'backbone.fold': its batch norm or bias is not finite"),
        ("no scale", "layer '.*': a scale of its activations is 0"),
        ("threshold", "layer 'backbone.fold': its threshold reaches 256"),
        ("gain", "layer 'backbone.fold': channel 15, which hardly moves"),
        ("norm", "layer 'backbone.fold': GroupNorm cannot be folded"),
    ],
)
def test_what_has_no_integers_is_refused_in_one_line(what: str, words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        lower(spoiled(what), 64, 64)
    assert "\n" not in str(caught.value)


def test_other_families_and_float_networks_are_refused() -> None:
    with pytest.raises(PackError, match="cannot be lowered"):
        lower(build_model("yolov5", "n", ("a",)), 64, 64)
    with pytest.raises(PackError, match="layer 'stem': its weights are float"):
        lower(build_model("mpq", "n", ("a",)), 64, 64)


def test_a_shortcut_and_a_residual_are_one_too_many() -> None:
    model = make_zoo()
    old = model.backbone.expand
    model.backbone.expand = new = StreamConv(16, 32, 3, act="relu").eval()
    new.load_state_dict(old.state_dict(), strict=False)
    new.conv.input_quantiser, new.conv.weight_quantiser = old.conv.input_quantiser, old.conv.weight_quantiser
    with pytest.raises(PackError, match=r"layer 'backbone\.expand': a shortcut and a residual"):
        lower(model, 64, 64)


def test_dead_channels_are_packed() -> None:
    """A convolution whose channel never moves has a batch norm that divides by almost nothing."""
    model = make_zoo()
    with torch.no_grad():
        bn = model.backbone.fold.bn
        bn.running_var[3], bn.running_mean[3] = 0.0, 0.0
    graph, _ = lower(model, 64, 64)
    node = next(node for node in graph.nodes if node.name == "backbone.fold")
    assert graph.constant(node, "multiplier")[3] == 0 and np.abs(graph.constant(node, "multiplier")).max() > 8000


def test_weights_of_a_channel_that_blurs_lose_bits_before_others_are_held_down() -> None:
    """Its sums reach far and count for little; those of a channel that sees edges are small and count for much."""
    model = make_zoo()
    stem = model.stem
    with torch.no_grad():
        stem.conv.weight[1] = stem.conv.weight[1].abs().max()
        stem.conv.weight[2] = 0
        stem.conv.weight[2, :, 0, 0] = stem.conv.weight[0].abs().max()
        stem.conv.weight[2, :, 0, 1] = -stem.conv.weight[0].abs().max()
        stem.bn.weight[2] = 8
    reestimate_bn(model, [noise(8)])
    notes: list[str] = []
    graph, _ = lower(model, 64, 64, notes.append)
    node = next(node for node in graph.nodes if node.name == "stem")
    peaks = np.abs(graph.constant(node, "weight").astype(int)).max((1, 2, 3))
    assert peaks[1] < 64 and peaks[[0, *range(2, 8)]].min() == 127
    assert notes == ["layer 'stem': weights have fewer bits, so that one shift can serve all channels: those of channel 1"]
    found = worst_steps(model, noise(2))
    assert found.pop("stem")[1] < 16  # of the 256 that are 1, in the channel whose weights are coarser
    check(found)


def test_all_handles_are_seen() -> None:
    assert {h.part for h in handles(make_zoo())} == {"weight", "activation"}
