"""Starting from other weights: a checkpoint, a run, or a YOLOv5 `.pt`, and what such weights need before they train here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.blocks import ToCode
from mpqyolo.detector.paper import PaperDetector
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.ptfile import read_pt
from mpqyolo.detector.yolov5_load import activation, rename
from mpqyolo.evaluate.names import class_map
from mpqyolo.quantize.lsq import LsqActivation
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.train.checkpoint import find, load_tensors, model_tensors
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import run_recipe

_SHOWN = 8
_LOW = 0.005  # share of a channel's values that its shift leaves below


class Started(NamedTuple):
    """notes: what to tell. fresh: names of the shifts that the source lacks."""

    notes: list[str]
    fresh: frozenset[str]


class _Source(NamedTuple):
    """silu: the weights were trained under that activation."""

    tensors: dict[str, Tensor]
    classes: tuple[str, ...]
    silu: bool


def load_start(model: nn.Module, recipe: Recipe) -> Started:
    """Fill the model with what fits of the weights that `recipe.start` names: equal name and shape.

    Rows of the class predictions go by class name. Of quantisers of the same kind and bits thresholds and scales are taken, never
    how strong they are. What was trained under SiLU gets activations that are as SiLU as they can. The notes say how many
    tensors were taken, and the names of those that the source lacks, has beside, or has in another shape. Raises
    CheckpointError if the file cannot be read or nothing fits.
    """
    path = Path(recipe.start)
    source = _from_pt(path) if path.suffix == ".pt" else _from_run(path)
    own = model.state_dict()
    tensors = _by_class(source.tensors, own, source.classes, recipe.model.classes)
    odd = [name for name in tensors.keys() & own.keys() if tensors[name].shape != own[name].shape]
    foreign = _foreign(tensors, model)
    taken = {name: tensor for name, tensor in tensors.items() if name in own and name not in odd and name not in foreign}
    if not any(name.startswith("backbone.") and tensor.dim() == 4 for name, tensor in taken.items()):
        raise CheckpointError(f"{path}: none of its {len(tensors)} tensors fits this model; is it another family or size?")
    model.load_state_dict(taken, strict=False)
    if source.silu and isinstance(model, PaperDetector):
        model.like_silu()
    scales = {f"{name}.{key}" for name, quantiser in _quantisers(model) for key in quantiser.state_dict()}
    shapes = [f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}" for name in sorted(odd)]
    notes = [
        f"{path}: {len(taken)} of {len(own)} tensors taken",
        *_list("missing in it", [name for name in own if name not in tensors and name not in scales]),
        *_list("only in it", [name for name in tensors if name not in own]),
        *_list("of another shape", shapes),
    ]
    return Started(notes, frozenset(name for name in own if name.endswith(".shift") and name not in taken))


def fit_start(model: nn.Module, fresh: Collection[str], batches: Iterable[Tensor]) -> None:
    """Set the shifts named in `fresh` to where each channel's values begin, then batch norm's statistics to these image batches.

    A float network's maps have values below 0 (SiLU's floor, signed streams), which a shift of 0 would cut off before training
    begins. Layer by layer in one pass, so each sees what those before it give. The model is left in eval mode.
    """

    def begin(module: LsqActivation | ToCode, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1)
        assert module.shift is not None
        module.shift.data.copy_(x[:, :: max(1, x.shape[1] // 10_000)].float().quantile(_LOW, dim=1).view_as(module.shift))

    found = [m for name, m in model.named_modules() if f"{name}.shift" in fresh and isinstance(m, (LsqActivation, ToCode))]
    batches = iter(batches)
    first = next(batches)
    hooks = [module.register_forward_pre_hook(begin) for module in found]
    reestimate_bn(model, [first])
    for hook in hooks:
        hook.remove()
    reestimate_bn(model, chain([first], batches))


def _quantisers(model: nn.Module) -> list[tuple[str, Quantiser]]:
    """Every quantiser under each of its names."""
    return [(name, m) for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, Quantiser)]


def _foreign(tensors: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    """Names of the source's tensors that its quantisers have, and ours must not take: the plan decides bits and strength, and
    scales of other bits or of another kind would count as set."""
    foreign: set[str] = set()
    for name, quantiser in _quantisers(model):
        mine, theirs = {f"{name}.{key}" for key in quantiser.state_dict()}, {key for key in tensors if key.startswith(f"{name}.")}
        same = mine == theirs and int(tensors[f"{name}.bits_buffer"]) == quantiser.bits
        foreign |= {f"{name}.strength", f"{name}.bits_buffer"} if same else theirs
    return foreign


def _from_run(path: Path) -> _Source:
    tensors, about = model_tensors(load_tensors(find(path))[0]), run_recipe(path).model
    return _Source(tensors, about.classes, about.family == "yolov5")


def _from_pt(path: Path) -> _Source:
    """Tensors of a YOLOv5 v6 under our names. Its head becomes the start of ours: a class's logit is the
    mean over anchors of its class and objectness logits (boxes cannot be taken over: anchors are not distances)."""
    file = read_pt(path)
    tensors, classes = rename(file.tensors), file.names or ()
    for kind in ("weight", "bias"):
        for level in range(len(STRIDES)):
            published = tensors.pop(f"predict.m.{level}.{kind}", None)
            if published is not None and published.shape[:1] == (3 * (5 + len(classes)),):
                rows = published.unflatten(0, (3, -1))
                tensors[f"predict.logit.{level}.{kind}"] = (rows[:, 5:] + rows[:, 4:5]).mean(0)
    tensors.pop("predict.anchors", None)
    return _Source(tensors, classes, activation(file, path) == "silu")


def _by_class(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str]
) -> dict[str, Tensor]:
    """Reorder the rows of `predict.logit.*` from the old classes to the new ones; classes that are new keep the fresh rows."""
    mapping = torch.from_numpy(class_map(new, old))
    known = mapping >= 0
    result = dict(tensors)
    if tuple(old) == tuple(new):
        return result
    for name, tensor in tensors.items():
        rowed = name.startswith("predict.logit.") and name.count(".") == 3  # the weight and the bias, not their quantisers
        fits = rowed and name in own and tensor.dim() > 0 and tensor.shape[1:] == own[name].shape[1:]
        if fits and len(tensor) == len(old) and len(own[name]) == len(new):
            rows = own[name].clone().cpu()
            rows[known] = tensor[mapping[known]].to(rows.dtype)
            result[name] = rows
    return result


def _list(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"  {what}: {len(names)}: {', '.join(names[:_SHOWN])}{more}"]
