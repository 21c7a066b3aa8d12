"""Starting from other weights: a checkpoint, a run, or a YOLOv5 `.pt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.blocks import RPReLU
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.ptfile import read_pt
from mpqyolo.detector.yolov5_load import rename
from mpqyolo.evaluate.names import class_map
from mpqyolo.quantize.apply import handles
from mpqyolo.train.checkpoint import find, load_tensors, model_tensors
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import run_recipe

_SHOWN = 8


def load_start(model: nn.Module, recipe: Recipe) -> list[str]:
    """Fill the model with what fits of the weights that `recipe.start` names: equal name and shape.

    Rows of the class predictions go by class name. Returns what to tell: how many tensors were taken, and the names of those
    that the source lacks, has beside, or has in another shape. Raises CheckpointError if the file cannot be read or nothing fits.
    """
    path = Path(recipe.start)
    if path.suffix == ".pt":
        tensors, classes = _from_pt(path)
    else:
        tensors, classes = model_tensors(load_tensors(find(path))[0]), run_recipe(path).model.classes
    own = model.state_dict()
    tensors = _by_class(tensors, own, classes, recipe.model.classes)
    odd = [name for name in tensors.keys() & own.keys() if tensors[name].shape != own[name].shape]
    taken = {name: tensor for name, tensor in tensors.items() if name in own and name not in odd}
    if not any(name.startswith("backbone.") and tensor.dim() == 4 for name, tensor in taken.items()):
        raise CheckpointError(f"{path}: none of its {len(tensors)} tensors fits this model; is it another family or size?")
    model.load_state_dict(taken, strict=False)
    if path.suffix == ".pt":  # weights that were trained under SiLU
        for module in model.modules():
            if isinstance(module, RPReLU):
                module.like_silu()
    quantisers = {id(tensor) for h in handles(model) for tensor in h.quantiser.state_dict(keep_vars=True).values()}
    scales = {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in quantisers}
    shapes = [f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}" for name in sorted(odd)]
    return [
        f"{path}: {len(taken)} of {len(own)} tensors taken",
        *_list("missing in it", [name for name in own if name not in tensors and name not in scales]),
        *_list("only in it", [name for name in tensors if name not in own]),
        *_list("of another shape", shapes),
    ]


def _from_pt(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors of a YOLOv5 v6 under our names, and its classes. Its head becomes the start of ours: a class's logit is the
    mean over anchors of its class and objectness logits (boxes cannot be taken over: anchors are not distances)."""
    file = read_pt(path)
    tensors, classes = rename(file.tensors), file.names or ()
    for kind in ("weight", "bias"):
        for level in range(len(STRIDES)):
            published = tensors.pop(f"predict.m.{level}.{kind}", None)
            if published is not None and len(published) == 3 * (5 + len(classes)):
                rows = published.unflatten(0, (3, -1))
                tensors[f"predict.logit.{level}.{kind}"] = (rows[:, 5:] + rows[:, 4:5]).mean(0)
    tensors.pop("predict.anchors", None)
    return tensors, classes


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
        fits = name.startswith("predict.logit") and name in own and tensor.dim() > 0 and tensor.shape[1:] == own[name].shape[1:]
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
