"""Which layer gets which quantiser, and what a run learns about their health."""

from __future__ import annotations

import pytest
import torch

from mpqyolo.core.bits import Bits, policy
from mpqyolo.core.errors import ConfigError, TrainingError
from mpqyolo.detector.blocks import StreamConv
from mpqyolo.detector.calls import meeting, trace
from mpqyolo.detector.model import build_model
from mpqyolo.quantize import health
from mpqyolo.quantize.apply import apply_policy, handles, parameter_kind
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.quantiser import Quantiser

TINY = {"stem": 8, "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "neck": [8, 8, 8]}


def tiny(name: str = "default", family: str = "mpq", **switches):
    torch.manual_seed(0)
    model = build_model(family, "n", ["a", "b"], **(TINY if family == "mpq" else {}))
    apply_policy(model, policy(name), **switches)
    return model


@pytest.mark.parametrize("family", ["mpq", "paper"])
@pytest.mark.parametrize("name", ["default", "mixed", "paper", "w1a2", "w1a4", "deep", "w4a4"])
def test_every_convolution_has_the_bits_of_the_policy(name: str, family: str) -> None:
    model, wanted = tiny(name, family), policy(name)
    found = handles(model)
    weights = {h.name: h.bits for h in found if h.part == "weight"}
    convs = [n for n, m in model.named_modules() if isinstance(m, QuantConv2d)]
    assert weights == {n: wanted.bits(n).weight for n in convs}
    for h in found:
        if h.part == "activation":
            assert h.bits == wanted.bits(h.name).activation, h.name
    assert len({id(h.quantiser) for h in found}) == len(found)
    regions = [h.name.split(".")[0] for h in found if h.part == "weight"]
    assert regions == sorted(regions, key=["stem", "backbone", "neck", "predict"].index)  # shallow to deep
    for h in found:
        h.quantiser.set_strength(1)
    maps = model(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert [tuple(m.shape[2:]) for m in maps.logit] == [(8, 12), (4, 6), (2, 3)]


def test_maps_that_meet_share_a_quantiser() -> None:
    model = tiny()
    groups = [group for group in meeting(trace(model)) if len(group) > 1]
    assert ["neck.lateral5", "neck.code4"] in groups and ["neck.top4.mix", "neck.down3"] in groups
    for group in groups:
        assert len({id(model.get_submodule(name).code.quantiser) for name in group}) == 1
        assert model.get_submodule(group[0]).code.quantiser.uses == len(group)
    alone = {id(model.get_submodule(name).code.quantiser) for group in meeting(trace(model)) for name in group[:1]}
    assert len(alone) == len(meeting(trace(model)))


def test_to_look_at_a_network_sets_no_scales() -> None:
    """The blank image that a network is traced with is none of the tensors that scales are set from."""
    model = tiny("w1a2").train()
    quantisers = [m for m in model.modules() if isinstance(m, Quantiser)]
    for quantiser in quantisers:
        quantiser.set_strength(0.5)
    model.stem.bn.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert handles(model) and parameter_kind(model)
    assert not any(bool(quantiser.initialised) or quantiser._seen for quantiser in quantisers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and model.stem.conv.training and not model.stem.bn.training


def test_float_has_no_quantisers_and_odd_wishes_are_refused() -> None:
    assert handles(tiny("float")) == []
    model = build_model("mpq", "n", ["a"], **TINY)
    apply_policy(model, policy("float").with_rules(("backbone.stage32.*", Bits(1, 32))))
    found = handles(model)
    assert found and all(h.name.startswith("backbone.stage32.") and (h.part, h.bits) == ("weight", 1) for h in found)
    with pytest.raises(ConfigError, match="unknown switch 'scales'"):
        tiny(scales=1)
    model = build_model("mpq", "n", ["a"], **TINY)
    with pytest.raises(ConfigError, match=r"layer '.*': weights can have 1, 4, 8 or 32 bits, not 3"):
        apply_policy(model, policy("default").with_rules(("backbone*", Bits(3, 1))))
    with pytest.raises(ConfigError, match=r"model\.switches\.shift must be true or false"):
        tiny(shift="no")
    for name in ("default", "w4a4"):  # the latter has no 1-bit map that would ask for it
        with pytest.raises(ConfigError, match=r"model\.switches\.ste can be lsq, clip, .*, not 'straight'"):
            tiny(name, ste="straight")
    model = build_model("mpq", "n", ["a"], **TINY)
    with pytest.raises(ConfigError, match="its activations are the neck's codes"):
        apply_policy(model, policy("default").with_rules(("predict*", Bits(8, 8))))
    with pytest.raises(ConfigError, match="no quantisers"):
        apply_policy(build_model("yolov5", "n", ["a"]), policy("default"))


def test_switches() -> None:
    fixed = tiny(trainable_scale=False, shift=False)
    trained = {name for name, p in fixed.named_parameters() if p.requires_grad}
    assert not any(name.endswith(("log_scale", "log_ratio")) or name.endswith("quantiser.shift") for name in trained)
    assert tiny(ste="clip").backbone.stage4[0].conv.input_quantiser.ste == "clip"


def test_kinds_of_parameters() -> None:
    model = tiny()
    kinds = parameter_kind(model)
    assert set(kinds) == {name for name, _ in model.named_parameters()}
    assert {k for n, k in kinds.items() if n.startswith("backbone") and n.endswith("conv.weight")} == {"latent"}
    assert {k for n, k in kinds.items() if n.startswith("neck") and n.endswith("conv.weight")} == {"weight"}
    assert {k for n, k in kinds.items() if n.endswith(("log_scale", "log_ratio"))} == {"scale"}
    assert {k for n, k in kinds.items() if n.endswith(("bias", "shift", "slope", "bn.weight", "before"))} == {"norm"}


def test_dead_layers_are_named() -> None:
    model = tiny()
    for h in handles(model):
        h.quantiser.set_strength(1)
    model(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    health.check(model)
    layer = model.backbone.stage8[0].conv
    saved = layer.weight.detach().clone()
    layer.weight.data.abs_().add_(1e-3)
    with pytest.raises(TrainingError, match=r"layer 'backbone.stage8.0.conv': all 1-bit weights are alike"):
        health.check(model)
    layer.weight.data.copy_(saved)
    model.neck.code3.code.quantiser.log_scale.data.fill_(-30)
    with pytest.raises(TrainingError, match="scale of its activations went to zero"):
        health.check(model)


def test_bits_that_are_all_alike_are_named() -> None:
    model = tiny().eval()
    for h in handles(model):
        h.quantiser.set_strength(1)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with health.watch_bits(model) as shares:
        model(images)
    assert len(shares) == sum(h.bits == 1 and h.part == "activation" for h in handles(model))
    health.check_bits(shares)
    model.backbone.stage16[1].conv.input_quantiser.shift.data.fill_(1e6)
    with health.watch_bits(model) as shares:
        model(images)
    with pytest.raises(TrainingError, match=r"layer 'backbone.stage16.1.conv': all bits of its input are alike"):
        health.check_bits(shares)


def test_rates() -> None:
    a = torch.tensor([1.0, -1.0, 2.0, -0.5])
    assert health.flip_rate(a, -a) == 1.0 and health.flip_rate(a, a) == 0.0
    quantiser = tiny().neck.sppf.reduce.conv.weight_quantiser
    w = torch.full((4, 16, 1, 1), 0.5)
    w[:2] = 2.0
    quantiser.set_scale(torch.full((4,), 0.1), w)
    assert health.clip_rate(quantiser, w) == 0.5


def test_a_gain_of_zero_keeps_the_function() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 8, 6, 6)
    for stride, c_out in ((1, 8), (2, 16), (1, 4)):
        layer = StreamConv(8, c_out, 3, stride, shortcut="gain").eval()
        with_it = layer(x)
        layer.shortcut = None
        assert torch.equal(with_it, layer(x))
