"""An ONNX detector as teacher, in ONNX Runtime, on the very augmented images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.core.image import FILL
from mpqyolo.detector.points import points
from mpqyolo.evaluate.names import class_map
from mpqyolo.train.teachers.cells import Shape, bring, sayable
from mpqyolo.train.teachers.decoding import decode_outputs
from mpqyolo.train.teachers.description import Description, Output
from mpqyolo.train.teachers.lesson import Boxes, Lesson, match

TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class OnnxTeacher:
    """A described ONNX file. threads: of ONNX Runtime. min_score: of boxes, where it gives boxes alone.

    Raises CheckpointError for a file that ONNX Runtime cannot use, ConfigError for one that is not as described.
    """

    def __init__(self, about: Description, file: Path, classes: Sequence[str], threads: int = 1, min_score: float = 0.5) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError("an ONNX teacher needs the package onnxruntime: pip install 'mpqyolo[export]'") from None
        if not file.is_file():
            raise CheckpointError(f"{file}: there is no such file with the teacher's weights")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # ONNX Runtime's own classes, which share no base but Exception
            raise CheckpointError(f"{file}: ONNX Runtime cannot read it: {_short(fault)}") from None
        self.about, self.file, self.min_score = about, file, min_score
        self.dense = about.output.kind != "boxes"
        inputs = self.session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        batched = isinstance(shape[0], int) and shape[0] != 1 if shape else True
        if len(shape) != 4 or batched or inputs[0].type not in TYPES:
            raise ConfigError(f"{file}: must have one input (1, 3, H, W) of floats, has {[i.shape for i in inputs]}")
        self.input, self.dtype = inputs[0].name, TYPES[inputs[0].type]
        self.whole = shape[0] != 1 and self.dense  # whether it takes a batch at once
        sides = tuple(side for side in shape[2:] if isinstance(side, int))
        self.size: Shape | None = (sides[0], sides[1]) if len(sides) == 2 else about.input.size
        self.match = match(classes, about.names, str(file))
        self.label = class_map(about.names, classes)
        self(torch.full((1, 3, 64, 64), FILL, dtype=torch.uint8))  # a file that is not as described shows it before training

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Lesson | Boxes:
        with torch.autocast(images.device.type, enabled=False):
            return self._lesson(images) if self.dense else self._boxes(images)

    def _lesson(self, images: Tensor) -> Lesson:
        pixels, scale = self._shown(images)
        part, strides = self.about.output, self.about.strides
        groups = (part.scores, part.boxes)
        rows = [self._run(group, groups) for group in ([pixels] if self.whole else pixels.split(1))]
        scores, boxes = (torch.cat([row[k] for row in rows]).to(images.device) if groups[k] else None for k in (0, 1))
        assert scores is not None
        shapes = [(-(-pixels.shape[2] // stride), -(-pixels.shape[3] // stride)) for stride in strides]
        centre, stride = points(shapes, strides, images.device)
        point = centre + (part.centre - 0.5) * stride.unsqueeze(-1)
        seen = decode_outputs(part, scores, boxes, len(self.about.names), point, stride, str(self.file))
        size = (images.shape[2], images.shape[3])
        seen = bring(seen._replace(score=self.match.pick(seen.score)), shapes, strides, scale, size)
        distance, score = sayable(seen, size)
        known = self.match.known
        return Lesson(score, distance, None if known is None else known.to(images.device))

    def _boxes(self, images: Tensor) -> Boxes:
        pixels, scale = self._shown(images)
        part = self.about.output
        order = [part.columns.index(name) for name in ("score", "class", "x1", "y1", "x2", "y2")]
        limit = torch.tensor([images.shape[3], images.shape[2]] * 2, dtype=torch.float32)
        targets = [torch.zeros(0, 6)]
        for place, image in enumerate(pixels.split(1)):
            rows = self._run(image, (part.scores,))[0][0]
            if rows.shape[-1] != 6:
                raise ConfigError(f"{self.file}: rows of boxes have {rows.shape[-1]} columns, the description says 6")
            score, kind, *_ = columns = rows[:, order].unbind(1)
            label = torch.full_like(kind, -1)
            real = (kind >= 0) & (kind < len(self.label))
            label[real] = torch.from_numpy(self.label)[kind[real].long()].to(label)
            box = torch.stack(columns[2:], 1) / torch.tensor([*scale] * 2)
            box = box.clamp(min=0).minimum(limit)
            keep = (score >= self.min_score) & (label >= 0) & (box[:, 2:] > box[:, :2]).all(1)
            targets.append(torch.cat((torch.full((int(keep.sum()), 1), float(place)), label[keep, None], box[keep]), 1))
        known = self.match.known
        return Boxes(torch.cat(targets).to(images.device), None if known is None else known.to(images.device))

    def _shown(self, images: Tensor) -> tuple[Tensor, tuple[float, float]]:
        """The images as the detector wants them, on the CPU, and its px for one px of ours, in x and y."""
        height, width = images.shape[-2:]
        step = max(self.about.strides)
        tall, wide = self.size or (-(-height // step) * step, -(-width // step) * step)
        part = self.about.input
        fit = min(tall / height, wide / width) if self.size else 1.0
        h, w = (tall, wide) if part.resize == "stretch" and self.size else (round(height * fit), round(width * fit))
        pixels = images.float()
        if (h, w) != (height, width):
            pixels = F.interpolate(pixels, (h, w), mode="bilinear", antialias=True)
        pixels = F.pad(pixels, (0, wide - w, 0, tall - h), value=float(FILL))
        pixels = pixels if part.colour == "rgb" else pixels.flip(1)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (part.mean, part.std))
        return ((pixels - mean) / std).to("cpu", self.dtype), (w / width, h / height)

    def _run(self, pixels: Tensor, groups: Sequence[Sequence[Output]]) -> list[Tensor]:
        """For each group of outputs (B, rows, channels) float32, its members' rows one after the other."""
        names = [output.name for output in self.session.get_outputs()]
        wanted = [self._name(output, names) for group in groups for output in group]
        try:
            found = self.session.run(wanted, {self.input: pixels.contiguous().numpy()})
        except Exception as fault:
            raise CheckpointError(f"{self.file}: ONNX Runtime cannot run it: {_short(fault)}") from None
        rows = [self._rows(name, value) for name, value in zip(wanted, found, strict=True)]
        joined = []
        for group in groups:
            mine, rows = rows[: len(group)], rows[len(group) :]
            if len({part.shape[::2] for part in mine}) > 1:
                shapes = ", ".join(str(list(part.shape[1:])) for part in mine)
                raise ConfigError(f"{self.file}: outputs {list(group)} are {shapes}, so they are not levels of one sort")
            joined.append(torch.cat(mine, 1) if mine else torch.zeros(0))
        return joined

    def _name(self, output: Output, names: Sequence[str]) -> str:
        if isinstance(output, int) and 0 <= output < len(names):
            return names[output]
        if output in names:
            return str(output)
        raise ConfigError(f"{self.file}: has no output {output!r}; it has {', '.join(names)}")

    def _rows(self, name: str, value: Any) -> Tensor:
        shape = getattr(value, "shape", ())
        if len(shape) < 2 or not np.issubdtype(value.dtype, np.number):
            raise ConfigError(f"{self.file}: output {name!r} is {list(shape)}, and no rows of numbers")
        rows = torch.from_numpy(np.asarray(value, np.float32))
        rows = rows[None] if rows.dim() == 2 else rows
        if self.about.output.channels_first:
            return rows.flatten(2).transpose(1, 2)
        return rows.flatten(1, -2)


def _short(fault: Exception) -> str:
    return " ".join(str(fault).split())[:200]
