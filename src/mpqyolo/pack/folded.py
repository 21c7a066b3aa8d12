"""The integer graph as a torch module: batches, any device, exact. Written from docs/numerics.md alone, not from reference/.

Sums are float convolutions of integers that the float type holds exactly, epilogues int32: products of two 16-bit numbers stay
below 2^30, and whatever is wider is clamped to 16 bits first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpqyolo.detector.maps import Maps
from mpqyolo.graph.ir import PREDICT_FRACTION, Model, Node
from mpqyolo.graph.ops import max_code
from mpqyolo.pack.lower import lower


class FoldedModel(nn.Module):
    """images uint8 (B, 3, H, W), letterboxed -> Maps in natural units, as the trained model gives them.

    `tensors` gives every tensor of the graph. It takes any size that the graph takes; constants are buffers.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.graph, self.levels = model.graph, model.decode.levels
        self.strides = tuple(level.stride for level in self.levels)
        self.classes = model.classes
        self.at = {name: f"constant{i}" for i, name in enumerate(self.graph.constants)}
        for name, constant in self.graph.constants.items():
            values = torch.from_numpy(constant.values.astype("int32"))
            by_channel = constant.dtype == "i16"
            values = values.view(1, -1, 1, 1) if by_channel else values.permute(0, 3, 1, 2).float().contiguous()
            self.register_buffer(self.at[name], values, persistent=False)
        self.wide = {node.name for node in self.graph.nodes if node.op == "conv" and self._greatest(node) > 1 << 24}
        self.register_parameter("place", nn.Parameter(torch.zeros(()), requires_grad=False))  # where the module lives

    def forward(self, images: Tensor) -> Maps:
        wanted = {name for level in self.levels for name in (level.distance, level.logit)}
        found = {name: value for name, value in self.steps(images) if name in wanted}
        unit = math.log(2) * 2.0**-PREDICT_FRACTION
        distance = tuple(found[level.distance].float().mul_(unit) for level in self.levels)
        return Maps(distance, tuple(found[level.logit].float().mul_(unit) for level in self.levels))

    def tensors(self, images: Tensor) -> dict[str, Tensor]:
        """Every tensor by name, (B, C, H, W) in the types of `ir.NUMPY_TYPE` (b1 as -1/+1 int8)."""
        return dict(self.steps(images))

    @torch.no_grad()
    def steps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, values) of every tensor in order of execution; none is kept longer than the graph needs it."""
        values = {self.graph.input: images}
        yield self.graph.input, images
        last = {name: i for i, node in enumerate(self.graph.nodes) for name in node.inputs}
        for i, node in enumerate(self.graph.nodes):
            ins = [values[name] for name in node.inputs]
            constants = {role: getattr(self, self.at[name]) for role, name in node.constants.items()}
            for name, value in zip(node.outputs, self._run(node, ins, constants), strict=True):
                values[name] = value
                yield name, value
            for name in (*node.inputs, *node.outputs):
                if last.get(name, -1) <= i:
                    values.pop(name, None)

    def _greatest(self, node: Node) -> int:
        """No partial sum of the convolution, in whatever order, is greater."""
        sizes = self.graph.constants[node.constants["weight"]].values.astype("int64")
        return int(abs(sizes).sum((1, 2, 3)).max()) * max_code(node, self.graph.tensors[node.inputs[0]])

    def _run(self, node: Node, ins: list[Tensor], constants: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        x, at = ins[0], node.attributes
        if node.op == "conv":
            return self._conv(node, ins, constants)
        if node.op == "threshold":
            return (_bits(x, constants["threshold"], at.get("step")),)
        if node.op == "requantise":
            wide = x.int() << 7 if x.dtype == torch.uint8 else x.int()
            return (_code(_sat(_mulhrs(wide, constants["multiplier"]) + constants["bias"]), at["fraction"]),)
        if node.op == "avgpool2":
            b, c, h, w = x.shape
            return ((x.view(b, c, h // 2, 2, w // 2, 2).sum((3, 5), dtype=torch.int32).add_(2) >> 2).short(),)
        if node.op == "maxpool":
            k = at["kernel"]
            # All codes are exact in float32, whose max-pool leaves out what is outside.
            return (functional.max_pool2d(x.float(), k, 1, k // 2).to(x.dtype),)
        if node.op == "upsample2":
            return (x.repeat_interleave(2, 2).repeat_interleave(2, 3),)
        assert node.op == "concat", node.op
        return (torch.cat(ins, 1),)

    def _conv(self, node: Node, ins: list[Tensor], c: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        at, weight = node.attributes, c["weight"]
        # float32 holds all integers up to 2^24, and sums that stay below in any order. Elsewhere than on a CPU a float32
        # convolution may go by Winograd or TF32, and only float64 is exact.
        real = torch.float64 if node.name in self.wide or weight.device.type != "cpu" else torch.float32
        pad = at["pad"]
        x, outside = ins[0].to(real), -1.0
        if at.get("planes") == 2:
            upper, lower = x.chunk(2, 1)
            x, outside = 2 * upper + lower, -3.0
        if ins[0].dtype == torch.int8 and pad:
            x, pad = functional.pad(x, (pad, pad, pad, pad), value=outside), 0
        acc = functional.conv2d(x, weight.to(real), None, at["stride"], pad)
        v = _mulhrs(_shift(acc, at["shift"]), c["multiplier"]).add_(c["bias"])
        v = _sat(v)
        r = None
        if len(ins) > 1:
            r = ins[1].int()
            if "gain" in c:
                r = _mulhrs(r, c["gain"])
            r = _spread(r, v.shape[1])
            if at["residual_last"] == 0:
                v = _sat(v.add_(r))
        if "slope" in c:
            v = torch.where(v < 0, _mulhrs(v, c["slope"]), v)
        if "post" in c:
            v = _sat(v + c["post"])
        if r is not None and at["residual_last"] == 1:
            v = _sat(v + r)
        write = {
            "s16": lambda: v.short(),
            "u4": lambda: _code(v, at["fraction"]),
            "b1": lambda: _bits(v, c["threshold"], at.get("step")),
        }
        return tuple(write[dtype]() for dtype in at["outputs"])


def folded(network: nn.Module, image_size: int | tuple[int, int]) -> FoldedModel:
    """The integers that `pack` would write of this network as they are now, as a module on its device: what a file will score.

    Raises PackError, as `lower` does.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    graph, decode = lower(network, height, width)
    model = FoldedModel(Model(graph, decode, tuple(network.classes), {}))  # type: ignore[arg-type]
    return model.to(next(network.parameters()).device).eval()


def _sat(x: Tensor) -> Tensor:
    return x.clamp(-32768, 32767)


def _mulhrs(a: Tensor, m: Tensor) -> Tensor:
    """(a*m + 2^14) >> 15 of int32 numbers in s16 range; m is never -32768, so nothing saturates and 2^30 is not passed."""
    return (a * m).add_(1 << 14) >> 15


def _shift(acc: Tensor, s: int) -> Tensor:
    """sat16(rshift(acc, s)) as int32, of a float tensor of integers below 2^31.

    To the left, saturating before changes nothing: what is beyond 16 bits stays beyond. To the right, acc + 2^(s-1) may pass
    2^31; ((acc >> (s-1)) + 1) >> 1 is the same, since the bits below 2^(s-1) have no say in floor(acc / 2^s + 1/2).
    """
    if s <= 0:
        return _sat(_sat(acc).int() << -s)
    return _sat(((acc.int() >> (s - 1)) + 1) >> 1)


def _spread(r: Tensor, outputs: int) -> Tensor:
    """The residual's channels over the outputs: repeated, or summed in groups, saturating after each."""
    channels = r.shape[1]
    if channels <= outputs:
        return r.repeat(1, outputs // channels, 1, 1)
    groups = r.split(outputs, 1)
    total = groups[0]
    for group in groups[1:]:
        total = _sat(total + group)
    return total


def _code(v: Tensor, fraction: int) -> Tensor:
    return (v >> fraction).clamp_(0, 15).to(torch.uint8)


def _bits(v: Tensor, threshold: Tensor, step: int | None) -> Tensor:
    """-1 or +1 of v against its threshold; with a step, of as many channels more against the threshold a step beyond."""
    found = v >= threshold
    if step is not None:
        low, high = _sat(threshold - step), _sat(threshold + step)
        found = torch.cat((found, v >= torch.where(found, high, low)), 1)
    return found.to(torch.int8).mul_(2).sub_(1)
