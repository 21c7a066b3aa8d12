"""A trained run -> a proven `.mpqy` file; a network with any weights -> its integer graph."""

from __future__ import annotations

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mpqyolo
from mpqyolo.account.cost import cost
from mpqyolo.account.yolov5 import MULTIPLES, ratios
from mpqyolo.core.bits import REGIONS, BitPolicy
from mpqyolo.core.errors import PackError
from mpqyolo.detector.blocks import Pixels
from mpqyolo.format.card import make_card
from mpqyolo.format.writer import write_model
from mpqyolo.graph.ir import Model
from mpqyolo.pack.lower import ENGINE_BITS, lower
from mpqyolo.pack.passes import optimise
from mpqyolo.pack.photos import proof_photos
from mpqyolo.pack.prove import Proof, prove
from mpqyolo.quantize.apply import handles
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.lsq import LsqActivation
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.train.checkpoint import find, load_checkpoint, load_tensors, make_model, model_policy
from mpqyolo.train.ema import batch_norms, reestimate_bn
from mpqyolo.train.recipe import ModelPart, Recipe

Size = int | tuple[int, int]  # side of the input, or (height, width), px


@dataclass(frozen=True)
class Packed:
    """What `pack` made. claim: bytes of the constants at their true width; photos: in words, what the proof ran on.

    notes: layers whose numbers had to be made to fit, a line each.

    ratios: of account/yolov5.py (ops_ratio, size_ratio, ops_ratio_elementwise); empty for sizes that YOLOv5 does not have.
    """

    path: Path
    model: Model
    size_bytes: int
    claim: int
    proof: Proof
    photos: str
    ratios: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def pack(
    source: Path | str,
    out: Path | str,
    photos: Sequence[np.ndarray] | Path | None = None,
    image_size: Size | None = None,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Pack a run folder, or one of its checkpoints, and prove the file before it takes its name.

    photos: for the proof, as `proof_photos` wants them. image_size: as in training if None. name: in the card, else that of the
    file. progress: called with (photos proven, of how many). Raises PackError if the network cannot be lowered or the proof
    fails, and leaves no file then; also CheckpointError, DataError, EngineError.
    """
    source, out = Path(source), Path(out)
    if not out.name or out.is_dir():
        raise PackError(f"{out}: is a folder; name the file to write")
    if not out.parent.is_dir():
        raise PackError(f"{out}: there is no folder {out.parent}")
    network, recipe = load_checkpoint(source)
    policy = model_policy(recipe.model)
    check_bits(network, policy)
    height, width = _both(image_size or recipe.image_size)
    notes: list[str] = []
    graph, decode = lower(network, height, width, notes.append)
    pictures, words = proof_photos(photos, recipe)
    card = _card(name or out.stem, source, recipe, (height, width), len(pictures), words)
    lowered = Model(graph, decode, recipe.model.classes, {"name": policy.name, "bits": layer_bits(network)}, card)
    model = Model(optimise(graph), decode, lowered.classes, lowered.policy, card)
    unproven = out.with_name(f".{out.name}.{os.getpid()}.unproven")
    try:
        write_model(model, unproven)
        proof = prove(lowered, unproven, pictures, progress)
        size = unproven.stat().st_size
        os.replace(unproven, out)
    finally:
        with suppress(OSError):
            unproven.unlink(missing_ok=True)
    counted = cost(model.graph, size)
    known = recipe.model.size in MULTIPLES
    against = ratios(counted, recipe.model.size, len(model.classes), (height, width)) if known else {}
    return Packed(out, model, size, cost(model.graph).size_bytes, proof, words, against, tuple(notes))


def graph_of(model: nn.Module, image_size: Size) -> Model:
    """The graph of a network at any stage, random weights too, as if it were quantised: its size and cost are exact.

    The given model stays as it is. Quantisers that never saw data are set from noise. Raises PackError for float networks.
    """
    network = copy.deepcopy(model).eval()
    quantisers = [m for m in network.modules() if isinstance(m, Quantiser)]
    for quantiser in quantisers:
        quantiser.set_strength(1)
        if isinstance(quantiser, LsqActivation):
            quantiser.set_bits(min(quantiser.bits, ENGINE_BITS))
    fresh = [q for q in quantisers if not bool(q.initialised)]
    if fresh:
        noise = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        device = next(network.parameters()).device
        reestimate_bn(network, [noise.to(device)] * 2)  # twice: what the first sets the scales by has no statistics yet
        # Two quantisers of one map that noise sets alike would be merged into one node; trained ones are never alike.
        for place, quantiser in enumerate(fresh, 1):
            if isinstance(quantiser, LsqActivation):
                quantiser.set_scale(quantiser.scale.detach() * (1 + place / 1024))
    height, width = _both(image_size)
    try:
        graph, decode = lower(network, height, width)
    except PackError:
        if not fresh:
            raise
        # Untrained bits can be all alike, and a batch norm then wants more than 16 bits. What is counted needs no such values.
        for norm in batch_norms(network):
            torch.nn.init.zeros_(norm.weight)
        graph, decode = lower(network, height, width)
    family, size, classes = (getattr(model, key, "") for key in ("family", "size", "classes"))
    assert isinstance(classes, tuple)
    card = {"family": str(family), "size": str(size), "image_size": [height, width]}
    return Model(optimise(graph), decode, classes, {"name": "of its layers", "bits": layer_bits(network)}, card)


def check_packable(part: ModelPart, image_size: Size) -> None:
    """Raise PackError if no training can make the network that a recipe describes fit a file. Nothing to say of float ones."""
    if part.policy != "float":
        graph_of(make_model(part.model_copy(update={"classes": part.classes or ("object",)})), image_size)


def check_bits(network: nn.Module, policy: BitPolicy) -> None:
    """Raise PackError that names the first layer whose weights or maps do not have the policy's bits (PNQ goes by way of 8)."""
    for name, layer in network.named_modules():
        if isinstance(layer, QuantConv2d):
            wanted, quantiser = policy.bits(name).weight, layer.weight_quantiser
            found = 32 if quantiser is None else quantiser.bits
            if found != wanted:
                raise PackError(
                    f"layer '{name}': its weights have {found} bits, policy '{policy.name}' says {wanted}; finish the training"
                )
    for handle in handles(network):
        wanted = policy.bits(handle.name).activation
        if handle.part == "activation" and handle.bits != wanted:
            raise PackError(f"layer '{handle.name}': its map has {handle.bits} bits, policy '{policy.name}' says {wanted}")


def layer_bits(network: nn.Module) -> dict[str, list[int]]:
    """[weight, activation] bits of each region, as most of its convolutions have them; pixels have 8 bits or less."""
    found: dict[str, list[tuple[int, int]]] = {region: [] for region in REGIONS}
    pixels = next((m.input_quantiser for m in network.modules() if isinstance(m, Pixels)), None)
    for name, layer in network.named_modules():
        region = name.partition(".")[0]
        if isinstance(layer, QuantConv2d) and region in found:
            reads = layer.input_quantiser
            activation = ENGINE_BITS if reads is None else reads.bits
            if region == "stem":
                activation = 8 if pixels is None else pixels.bits
            found[region].append((32 if layer.weight_quantiser is None else layer.weight_quantiser.bits, activation))
    return {region: list(Counter(bits).most_common(1)[0][0]) if bits else [32, 32] for region, bits in found.items()}


def _both(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 32 or height % 32 or width % 32:
        raise PackError(f"image size {height}x{width}: both must be multiples of 32")
    return height, width


def _card(name: str, source: Path, recipe: Recipe, size: tuple[int, int], photos: int, words: str) -> dict[str, Any]:
    """The model card: no folder of this machine is in it, only names."""
    file = find(source)
    record = load_tensors(file)[1]
    metrics: dict[str, Any] = {f"val_{key}": record[key] for key in ("map", "map50", "voc_ap50") if key in record}
    told = recipe.model_dump(mode="json", exclude_defaults=True)
    for part, key in (("data", "path"), ("data", "unlabelled"), ("teacher", "path"), ("teacher", "model")):
        if told.get(part, {}).get(key):
            told[part][key] = _last(told[part][key])
    if told.get("start"):
        told["start"] = _last(told["start"])
    told.get("model", {}).pop("classes", None)  # they have a place of their own in the file
    return make_card(
        name,
        recipe.model.family,
        recipe.model.size,
        size[0] if size[0] == size[1] else size,
        data=_last(recipe.data.path) or "not stated",
        recipe=told,
        metrics=metrics,
        mpqyolo=mpqyolo.__version__,
        checkpoint={"epoch": record.get("epoch"), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
        proof={"photos": photos, "from": words, "equal": ["folded network", "reference", "engine"]},
    )


def _last(path: str) -> str:
    """The name of a data set or run: of its folder, where the path is that of a file in it."""
    found = Path(path)
    if found.suffix not in (".yaml", ".yml", ".json", ".txt", ".safetensors"):
        return found.name
    inside = found.parent.name in ("annotations", "checkpoints")
    return found.parent.parent.name if inside else found.parent.name
