"""Starting from other weights: a checkpoint, a run, or a YOLOv5 `.pt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.evaluate.names import class_map
from mpqyolo.quantize.apply import handles
from mpqyolo.train.checkpoint import find, load_tensors, model_tensors, run_recipe
from mpqyolo.train.recipe import Recipe

_SHOWN = 8


def load_start(model: nn.Module, recipe: Recipe) -> list[str]:
    """Fill the model with what fits of the weights that `recipe.start` names: equal name and shape.

    Rows of the class predictions go by class name. Returns what to tell: how many tensors were taken, and the names of those
    that the source lacks, has beside, or has in another shape. Raises CheckpointError if the file cannot be read or nothing fits.
    """
    path = Path(recipe.start)
    if path.suffix == ".pt":
        tensors, classes = _from_pt(path, model)
    else:
        tensors, classes = model_tensors(load_tensors(find(path))[0]), run_recipe(path).model.classes
    own = model.state_dict()
    tensors = _by_class(tensors, own, classes, recipe.model.classes)
    odd = [name for name in tensors.keys() & own.keys() if tensors[name].shape != own[name].shape]
    taken = {name: tensor for name, tensor in tensors.items() if name in own and name not in odd}
    if not any(name.endswith("weight") for name in taken):
        raise CheckpointError(f"{path}: none of its {len(tensors)} tensors fits this model; is it another family or size?")
    model.load_state_dict(taken, strict=False)
    quantisers = {id(tensor) for h in handles(model) for tensor in h.quantiser.state_dict(keep_vars=True).values()}
    scales = {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in quantisers}
    shapes = [f"{name} {list(tensors[name].shape)} for {list(own[name].shape)}" for name in sorted(odd)]
    return [
        f"{path}: {len(taken)} of {len(own)} tensors taken",
        *_list("missing in it", [name for name in own if name not in tensors and name not in scales]),
        *_list("only in it", [name for name in tensors if name not in own]),
        *_list("of another shape", shapes),
    ]


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
