"""Putting quantisers into a detector, once, from its BitPolicy; and listing them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from mpqyolo.core.bits import BitPolicy
from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks import CodeConv, Pixels, Predict, StreamConv, ToCode
from mpqyolo.detector.calls import meeting, trace
from mpqyolo.quantize.binary import BinaryActivation, BinaryWeight
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.lsq import Lsq, LsqActivation, LsqWeight
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import STE_KINDS

SWITCHES: dict[str, Any] = {"trainable_scale": True, "shift": True, "ste": "lsq"}
SLOTS = {"input_quantiser": "activation", "quantiser": "activation", "weight_quantiser": "weight"}  # where layers hold them


class Handle(NamedTuple):
    """A quantiser in its place. name: dotted name of the layer that it belongs to; part: "weight" or "activation"."""

    name: str
    part: str
    bits: int
    quantiser: Quantiser


def apply_policy(model: nn.Module, policy: BitPolicy, **switches: Any) -> None:
    """Give every layer of the model the quantisers of its bits, at strength 0; 32 bits get none.

    Switches: `trainable_scale` (LSQ scales learn), `shift` (thresholds of the backbone's maps learn), `ste` (gradient of 1-bit
    maps: "lsq", whose window is learned, or one of ste.STE_KINDS around the sign). Maps that meet in a concat share one
    quantiser. Raises ConfigError for an unknown switch or value, or bits that a layer cannot have.
    """
    unknown = set(switches) - set(SWITCHES)
    if unknown:
        raise ConfigError(f"unknown switch '{min(unknown)}' in model.switches; known: {', '.join(SWITCHES)}")
    settings = SWITCHES | switches
    for name in ("trainable_scale", "shift"):
        if not isinstance(settings[name], bool):
            raise ConfigError(f"model.switches.{name} must be true or false, not {settings[name]!r}")
    if settings["ste"] not in ("lsq", *STE_KINDS):
        raise ConfigError(f"model.switches.ste can be lsq, {', '.join(STE_KINDS)}, not {settings['ste']!r}")
    convs = {name: m for name, m in model.named_modules() if isinstance(m, QuantConv2d)}
    if all(bits == 32 for _, pair in policy.rules for bits in pair):
        return
    if not any(isinstance(m, StreamConv) for m in model.modules()):
        raise ConfigError(f"this family has no quantisers; train it with policy 'float', not '{policy.name}', or choose another")
    for name, conv in convs.items():
        if isinstance(conv, Predict) and policy.bits(name).activation not in (4, 32):
            raise ConfigError(f"layer '{name}': its activations are the neck's codes, of 4 bits or float")
        # Predictions have no batch norm that evens channels out: with one scale, one shift of the integer sums always serves all.
        scales = 1 if isinstance(conv, Predict) else conv.out_channels
        conv.weight_quantiser = _weight(name, policy.bits(name).weight, scales, settings)
    for name, module in model.named_modules():
        if isinstance(module, StreamConv):
            bits = policy.bits(f"{name}.conv").activation
            if not name.startswith("stem"):
                module.conv.input_quantiser = _stream(name, bits, module.conv.in_channels, settings)
        elif isinstance(module, Pixels):
            bits = policy.bits("stem.conv").activation
            if bits < 8:
                module.input_quantiser = LsqActivation(_code_bits("stem", bits), trainable=settings["trainable_scale"])
    for group in meeting(trace(model)):
        bits = policy.bits(f"{group[0]}.code").activation
        if bits < 32:
            shared = LsqActivation(_code_bits(group[0], bits), trainable=settings["trainable_scale"])
            shared.uses = len(group)
            for name in group:
                layer = model.get_submodule(name)
                assert isinstance(layer, (CodeConv, ToCode))
                layer.code.quantiser = shared


def layer_names(model: nn.Module) -> list[str]:
    """The names that a policy is asked for bits by: of convolutions, and of the first layer of each group that makes codes."""
    names = [name for name, module in model.named_modules() if isinstance(module, QuantConv2d)]
    if any(isinstance(module, StreamConv) for module in model.modules()):
        names += [f"{group[0]}.code" for group in meeting(trace(model))]
    return names


def _weight(name: str, bits: int, scales: int, settings: dict[str, Any]) -> Quantiser | None:
    if bits == 32:
        return None
    if bits == 1:
        return BinaryWeight()
    if bits not in (4, 8):
        raise ConfigError(f"layer '{name}': weights can have 1, 4, 8 or 32 bits, not {bits}")
    return LsqWeight(bits, scales, settings["trainable_scale"])


def _stream(name: str, bits: int, channels: int, settings: dict[str, Any]) -> Quantiser | None:
    if bits == 32:
        return None
    if bits == 1 and settings["ste"] != "lsq":
        return BinaryActivation(channels, settings["ste"], settings["shift"])
    if bits not in (1, 2, 4):
        raise ConfigError(f"layer '{name}': activations of the backbone can have 1, 2, 4 or 32 bits, not {bits}")
    return LsqActivation(bits, channels, settings["trainable_scale"], settings["shift"])


def _code_bits(name: str, bits: int) -> int:
    if bits != 4:
        raise ConfigError(f"layer '{name}': activations can have 4 or 32 bits here, not {bits}")
    return bits


def handles(model: nn.Module) -> list[Handle]:
    """Every quantiser of the model once, in the order in which the layers run, weights after activations.

    An activation quantiser that several layers share is listed under the first of them.
    """
    found: list[Handle] = []
    seen: set[int] = set()
    order = {name: place for place, name in enumerate(dict(model.named_modules()))}
    if not any(isinstance(m, Quantiser) for m in model.modules()):
        return []
    for name in (call.name for call in trace(model).calls):
        inside = [n for n in order if n == name or n.startswith(name + ".")]
        places = [(n, model.get_submodule(n)) for n in inside]
        for place, module in places:
            owner = "stem.conv" if isinstance(module, Pixels) else place
            for attribute, part in SLOTS.items():
                quantiser = module.__dict__.get("_modules", {}).get(attribute)
                if isinstance(quantiser, Quantiser) and id(quantiser) not in seen:
                    seen.add(id(quantiser))
                    found.append(Handle(owner, part, quantiser.bits, quantiser))
    return found


def parameter_kind(model: nn.Module) -> dict[str, str]:
    """Kind of every parameter: "latent" (weights that become 1-bit), "scale" (LSQ), "norm" (one number a channel), "weight"."""
    latent = {
        f"{name}.weight"
        for name, m in model.named_modules()
        if isinstance(m, QuantConv2d) and isinstance(m.weight_quantiser, BinaryWeight)
    }
    convs = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    scales = {id(h.quantiser.learned) for h in handles(model) if isinstance(h.quantiser, Lsq)}
    kinds = {}
    for name, parameter in model.named_parameters():
        if name in latent:
            kinds[name] = "latent"
        elif id(parameter) in scales:
            kinds[name] = "scale"
        else:
            kinds[name] = "norm" if parameter.numel() == max(parameter.shape, default=1) and name not in convs else "weight"
    return kinds
