"""Checkpoints: safetensors with a JSON record, written atomically; never pickled code."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mpqyolo.core.bits import BitPolicy, Bits, policy
from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.detector.model import build_model
from mpqyolo.quantize.apply import apply_policy, layer_names
from mpqyolo.train.files import part_of, settle
from mpqyolo.train.recipe import ModelPart, Recipe
from mpqyolo.train.recipe_file import run_recipe

LAST = "checkpoints/last.safetensors"  # everything that training needs to go on
BEST = "checkpoints/best.safetensors"  # the averaged, re-estimated weights of the best evaluation of the final stage
TEACHER = "checkpoints/teacher.safetensors"
_RECORD = "mpqyolo"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record into one safetensors file, atomically. Raises CheckpointError if the disk refuses."""
    part = part_of(path)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, part, metadata={_RECORD: json.dumps(record)})
    except (SafetensorError, OSError) as error:
        fault = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: cannot be written: {fault}; what was there is still whole: make room, then go on"
        ) from None
    part.chmod(0o644)  # safetensors lets nobody else read it
    settle(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, to the CPU. The record is empty for safetensors of other origin. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            record = json.loads((file.metadata() or {}).get(_RECORD, "{}"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors checkpoint: {str(error).splitlines()[0]}") from None
    return tensors, record


def make_model(part: ModelPart) -> nn.Module:
    """The detector that a recipe describes: fresh weights, quantisers of its policy in place at strength 0.

    Raises ConfigError for a model.rules pattern that no layer matches, and whatever build_model and apply_policy raise.
    """
    if not part.classes:
        raise CheckpointError("model.classes is empty: this recipe has not been through a training run")
    model = build_model(part.family, part.size, part.classes, **part.options)
    layers = layer_names(model) if part.rules else []
    for pattern, _, _ in part.rules:
        if not fnmatch.filter(layers, pattern):
            known = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in layers))
            below = f"; '{pattern}.*' is what lies below it" if fnmatch.filter(layers, f"{pattern}.*") else ""
            raise ConfigError(f"model.rules: '{pattern}' matches no layer that has bits{below}; they begin with: {known}")
    apply_policy(model, model_policy(part), **part.switches)
    return model


def model_policy(part: ModelPart) -> BitPolicy:
    """The recipe's policy, its own rules first."""
    named = policy(part.policy)
    return named.with_rules(*((pattern, Bits(w, a)) for pattern, w, a in part.rules)) if part.rules else named


def find(path: Path | str) -> Path:
    """The checkpoint file that `path` means: itself, or in a run folder the best, else the last. Raises CheckpointError."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: no checkpoint in this folder; expected {BEST} or {LAST} of a training run")


def load_checkpoint(path: Path | str) -> tuple[nn.Module, Recipe]:
    """The trained model, in eval mode on the CPU, and its recipe. path: a run folder or one of its checkpoints.

    Of a checkpoint to resume from, the averaged weights are taken. Raises CheckpointError.
    """
    file = find(path)
    tensors = model_tensors(load_tensors(file)[0])
    recipe = run_recipe(path)
    model = make_model(recipe.model)
    load_exactly(model, tensors, file)
    return model.eval(), recipe


def model_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a checkpoint of either kind: `ema/...` of one to resume from, or all of one that is finished."""
    averaged = {name.removeprefix("ema/"): tensor for name, tensor in tensors.items() if name.startswith("ema/")}
    return averaged or dict(tensors)


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Fill the model; every name and shape must agree. Raises CheckpointError that names the first that does not."""
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            raise CheckpointError(
                f"{file}: tensor '{name}' is {'missing' if name in own else 'not in the model'}; "
                "is run.toml another run's, or the run of another version of mpqyolo?"
            )
        if own[name].shape != tensors[name].shape:
            raise CheckpointError(f"{file}: '{name}' is {list(tensors[name].shape)}, the model wants {list(own[name].shape)}")
    model.load_state_dict(tensors)
