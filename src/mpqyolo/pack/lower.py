"""A trained detector -> the integer graph, layer by layer in the order of its calls; no pass has improved it yet.

Every rule below rewrites what `detector/blocks.py` computes in evaluation as docs/numerics.md, section 4, computes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from mpqyolo.core.errors import ConfigError, PackError
from mpqyolo.detector.blocks import CodeConv, Pixels, Predict, StreamConv, ToCode
from mpqyolo.detector.blocks_common import Concat, MaxPool, Upsample2
from mpqyolo.detector.calls import Call, trace
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import PREDICT_FRACTION, STREAM_FRACTION, Decode, Graph, Level, Tensor
from mpqyolo.graph.ops import GraphError
from mpqyolo.pack import fold, read
from mpqyolo.quantize.binary import BinaryActivation
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.lsq import LsqActivation
from mpqyolo.quantize.quantiser import Quantiser

STREAM = 2.0**-STREAM_FRACTION
PREDICTION = 2.0**-PREDICT_FRACTION
ENGINE_BITS = 4  # of maps that are not bits
PIXEL_LEFT = 7  # requantise takes pixels in as x << 7
FIVE_BITS = 32  # 8-bit weights that reach this far can be halved and have five bits still


def lower(model: nn.Module, height: int, width: int, note: Callable[[str], object] | None = None) -> tuple[Graph, Decode]:
    """The graph of a fully quantised detector at this input size, and how to decode it.

    Nodes and tensors have the layers' names; derived ones have a suffix. note: told of channels that do not fit as they are.
    Raises PackError, one line with the layer, for what has no integer form: float or half-quantised layers, other bits than the
    engine has, constants out of 16 bits, channels that the graph has no layout for.
    """
    for name, module in model.named_modules():  # a quantiser that never saw data would be set from the tracer's blank image
        if isinstance(module, Quantiser) and not bool(module.initialised):
            read.ready(module, name, "values")
    lowering = _Lowering(height, width, note)
    try:
        calls = trace(model)
        for call in distinct(calls.calls):
            lowering.add(call)
    except (ConfigError, GraphError) as fault:
        raise PackError(str(fault)) from None
    strides = model.strides
    assert isinstance(strides, tuple)
    pairs = [(lowering.values[d], lowering.values[c]) for d, c in zip(calls.distance, calls.logit, strict=True)]
    levels = tuple(Level(stride, *pair) for stride, pair in zip(strides, pairs, strict=True))
    return lowering.build.graph([name for pair in pairs for name in pair]), Decode(levels)


def distinct(calls: Iterable[Call]) -> Iterator[Call]:
    """The calls under names of their own: a layer that is called again (one pool, three times) is `name.2`, `name.3`."""
    times: Counter[str] = Counter()
    for call in calls:
        times[call.name] += 1
        yield call if times[call.name] == 1 else replace(call, name=f"{call.name}.{times[call.name]}")


class _Lowering:
    """values: number of a traced value -> name of its tensor."""

    def __init__(self, height: int, width: int, note: Callable[[str], object] | None) -> None:
        self.build = Builder(height, width)
        self.note = note
        self.values = {0: self.build.input}

    def add(self, call: Call) -> None:
        rules: dict[type, Callable[[Call, list[Tensor]], str]] = {
            Pixels: self._pixels,
            StreamConv: self._stream_conv,
            CodeConv: self._code_conv,
            ToCode: self._to_code,
            Predict: self._predict,
            Concat: self._move,
            MaxPool: self._move,
            Upsample2: self._move,
        }
        rule = next(rule for kind, rule in rules.items() if isinstance(call.module, kind))
        self.values[call.output] = rule(call, [self.build.tensors[self.values[v]] for v in call.inputs])

    def _pixels(self, call: Call, inputs: list[Tensor]) -> str:
        """Pixels are the image itself, or its u4 codes: x/255/s codes of pixel x."""
        assert isinstance(call.module, Pixels)
        if call.module.input_quantiser is None:
            return inputs[0].name
        quantiser = read.code_quantiser(call.module.input_quantiser, call.name)
        return self._requantise(call.name, inputs[0], quantiser, np.zeros(inputs[0].shape[0]))

    def _stream_conv(self, call: Call, inputs: list[Tensor]) -> str:
        """v = factor*acc + offset - before (+ shortcut); slope where v < 0; + after (+ residual), all in steps of the stream."""
        layer = call.module
        assert isinstance(layer, StreamConv)
        name, x = self._stream_input(call.name, layer.conv, inputs[0])
        act = read.activation(layer.act, layer.conv.out_channels, call.name)
        w, epilogue = self._fitting(call.name, layer, x, act.before)
        constants = {}
        sources = [name]
        more = {"planes": x.planes} if x.planes > 1 else {}
        if layer.shortcut is not None:
            if len(inputs) > 1:
                raise PackError(f"layer '{call.name}': a shortcut and a residual; a convolution adds one")
            source = self._need(call.name, inputs[0], "s16")
            if layer.shortcut.stride == 2:
                (name,) = self.build.add("avgpool2", f"{call.name}.avgpool", [source.name])
                source = self.build.tensors[name]
            gain = read.gain(layer.shortcut)
            if gain is not None:
                constants["gain"] = ("i16", fold.q15(gain, call.name, "gain"))
            sources.append(source.name)
            more["residual_last"] = 0
        elif len(inputs) > 1:
            sources.append(self._need(call.name, inputs[1], "s16").name)
            more["residual_last"] = 1
        if act.slope is not None:
            constants["slope"] = ("i16", fold.q15(act.slope, call.name, "slope"))
        if act.after is not None:
            constants["post"] = ("i16", fold.i16(act.after / STREAM, call.name, "activation's shift"))
        return self._conv(call.name, layer.conv, w, epilogue, sources, constants, "s16", STREAM, **more)

    def _fitting(self, name: str, layer: StreamConv, x: read.Map, before: np.ndarray) -> tuple[read.Weights, fold.Epilogue]:
        """Weights and epilogue. Where one shift cannot serve all channels, 8-bit weights of those with the widest sums lose bits.

        A channel that blurs sums up far and is scaled down again by its batch norm: its weights can spare the bits, where the
        others would be held down. Down to five bits; whatever holds the others down least is taken.
        """
        whole = w = read.weights(layer.conv, name)
        best: tuple[read.Weights, fold.Epilogue] | None = None
        least, refused = 0.0, None
        while True:
            line = read.linear(layer.conv, layer.bn, w, x, name)
            try:
                epilogue = fold.stream(line.factor / STREAM, (line.offset - before) / STREAM, line.sums, name)
                left = min(epilogue.held.values(), default=1.0)
                if left > least:
                    best, least = (w, epilogue), left
            except PackError as fault:
                refused = refused or fault
            widest = line.sums.widest
            if least == 1 or w.dtype != "w8" or np.abs(w.codes[widest].astype(int)).max() < FIVE_BITS:
                break
            w = read.coarser(w, widest)
        if best is None:
            assert refused
            raise refused
        fewer = np.flatnonzero(best[0].scale != whole.scale)
        if len(fewer) and self.note:
            words = ", ".join(map(str, fewer))
            self.note(
                f"layer '{name}': weights have fewer bits, so that one shift can serve all channels: those of channel {words}"
            )
        return best

    def _stream_input(self, name: str, conv: QuantConv2d, x: Tensor) -> tuple[str, read.Map]:
        """The tensor that the convolution reads: pixels or codes as they are, the stream as bits, pairs of bits, or codes."""
        if x.dtype != "s16":
            if conv.input_quantiser is not None:
                raise PackError(f"layer '{name}': it quantises a map that is {x.dtype} already")
            return x.name, read.Map(x.dtype, x.scale)
        quantiser = read.stream_quantiser(conv, name)
        if isinstance(quantiser, LsqActivation) and quantiser.bits == ENGINE_BITS:
            shift = np.zeros(x.shape[0]) if quantiser.shift is None else read.numbers(quantiser.shift)
            made = self._requantise(f"{name}.requantise", x, quantiser, shift)
            return made, read.Map("u4", self.build.tensors[made].scale)
        step = {}
        if quantiser.bits == 1:
            values = fold.thresholds(read.numbers(quantiser.threshold), STREAM_FRACTION, name)
        else:
            assert isinstance(quantiser, LsqActivation) and quantiser.shift is not None
            scale = float(quantiser.scale.detach())
            values, step["step"] = fold.ladder(read.numbers(quantiser.shift), scale, STREAM_FRACTION, name)
        (made,) = self.build.add("threshold", f"{name}.threshold", [x.name], {"threshold": ("i16", values)}, None, **step)
        if isinstance(quantiser, BinaryActivation):
            return made, read.Map("b1", 1.0)
        return made, read.Map("b1", float(quantiser.scale.detach()) / 2, quantiser.bits, 2**quantiser.bits - 1)

    def _code_conv(self, call: Call, inputs: list[Tensor]) -> str:
        """code = clamp(floor((factor*acc + offset) / s + 1/2), 0, 15)."""
        layer = call.module
        assert isinstance(layer, CodeConv)
        x, s = self._codes(call.name, layer.conv, inputs[0]), self._code_scale(call.name, layer.code.quantiser)
        w = read.weights(layer.conv, call.name)
        line = read.linear(layer.conv, layer.bn, w, read.Map(x.dtype, x.scale), call.name)
        epilogue = fold.codes(line.factor / s, line.offset / s, line.sums, call.name)
        return self._conv(call.name, layer.conv, w, epilogue, [x.name], {}, "u4", s, fraction=epilogue.fraction)

    def _to_code(self, call: Call, inputs: list[Tensor]) -> str:
        """code = clamp(floor((x - shift) / s + 1/2), 0, 15) of the stream x."""
        assert isinstance(call.module, ToCode)
        quantiser = read.code_quantiser(call.module.code.quantiser, call.name)
        shift = read.numbers(call.module.shift)
        if quantiser.shift is not None:
            shift = shift + read.numbers(quantiser.shift)
        return self._requantise(call.name, self._need(call.name, inputs[0], "s16"), quantiser, shift)

    def _predict(self, call: Call, inputs: list[Tensor]) -> str:
        """Natural logarithms become binary ones: e^t = 2^(t*log2(e))."""
        conv = call.module
        assert isinstance(conv, Predict)
        x = self._codes(call.name, conv, inputs[0])
        w = read.weights(conv, call.name)
        line = read.linear(conv, None, w, read.Map(x.dtype, x.scale), call.name)
        unit = math.log2(math.e) / PREDICTION
        epilogue = fold.stream(line.factor * unit, line.offset * unit, line.sums, call.name)
        return self._conv(call.name, conv, w, epilogue, [x.name], {}, "s16", PREDICTION)

    def _move(self, call: Call, inputs: list[Tensor]) -> str:
        op = "concat"
        attributes: dict[str, Any] = {}
        if isinstance(call.module, MaxPool):
            op, attributes = "maxpool", {"kernel": call.module.kernel}
        elif isinstance(call.module, Upsample2):
            op = "upsample2"
        (name,) = self.build.add(op, call.name, [t.name for t in inputs], **attributes)
        return name

    def _requantise(self, name: str, x: Tensor, quantiser: LsqActivation, shift: np.ndarray) -> str:
        scale = float(quantiser.scale.detach())
        left = PIXEL_LEFT if x.dtype == "u8" else 0
        e = fold.requantise(x.scale / scale, shift / scale, left, name)
        constants = {"multiplier": ("i16", e.multiplier), "bias": ("i16", e.bias)}
        return self.build.add("requantise", name, [x.name], constants, {"u4": scale}, fraction=e.fraction)[0]

    def _codes(self, name: str, conv: QuantConv2d, x: Tensor) -> Tensor:
        if conv.input_quantiser is not None:
            raise PackError(f"layer '{name}': it quantises a map that is {x.dtype} already")
        return self._need(name, x, "u4")

    def _code_scale(self, name: str, quantiser: Quantiser | None) -> float:
        found = read.code_quantiser(quantiser, name)
        if found.shift is not None:
            raise PackError(f"layer '{name}': a shift before its codes; its batch norm has one already")
        return float(found.scale.detach())

    def _need(self, name: str, x: Tensor, dtype: str) -> Tensor:
        if x.dtype != dtype:
            raise PackError(f"layer '{name}': it reads '{x.name}', which is {x.dtype}, where the graph needs {dtype}")
        return x

    def _conv(
        self,
        name: str,
        conv: QuantConv2d,
        w: read.Weights,
        e: fold.Epilogue,
        sources: list[str],
        constants: dict[str, tuple[str, np.ndarray]],
        dtype: str,
        scale: float,
        **attributes: int,
    ) -> str:
        if e.held and self.note:
            words = ", ".join(f"{channel} to {share:.0%}" for channel, share in e.held.items())
            self.note(f"layer '{name}': channels are held down, since one shift cannot serve all: {words} of their factor")
        constants = {"weight": (w.dtype, w.codes), "multiplier": ("i16", e.multiplier), "bias": ("i16", e.bias), **constants}
        attributes |= {"kernel": conv.kernel_size[0], "stride": conv.stride[0], "pad": int(conv.padding[0]), "shift": e.shift}
        return self.build.add("conv", name, sources, constants, {dtype: scale}, outputs=(dtype,), **attributes)[0]
