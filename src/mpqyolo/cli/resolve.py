"""MODEL: what a word on the command line means, decided in this one place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mpqyolo.core.bits import POLICIES
from mpqyolo.core.errors import ConfigError, PackError

if TYPE_CHECKING:
    from mpqyolo.evaluate.predictors import Predictor
    from mpqyolo.graph.ir import Model

# Names that stand for a network with random weights: what it costs does not depend on training.
_PREFIX = {"mpq": "", "paper": "paper-", "yolov5": "yolov5"}
RANDOM = {prefix + size: (family, size) for family, prefix in _PREFIX.items() for size in "nsm"}
POLICY = {"mpq": "default", "paper": "paper", "yolov5": "float"}
_BITS = ", ".join(name for name in POLICIES if name != "float")
_POLICY = f"Bits of a network with random weights: {_BITS}. If not given, paper for paper-n, paper-s and paper-m, else default."
RandomPolicy = Annotated[str | None, Parameter(help=_POLICY)]
MAGIC = b"MPQY"
SUFFIXES = {".mpqy": "packed", ".safetensors": "checkpoint", ".pt": "published", ".pth": "published", ".onnx": "onnx"}


@dataclass(frozen=True)
class Reference:
    """What MODEL means. kind: packed, checkpoint, published (a YOLOv5 `.pt`), onnx, or random; path where it is a file."""

    name: str
    kind: str
    path: Path = Path()
    family: str = ""
    size: str = ""


def resolve(text: str) -> Reference:
    """The model that MODEL names: carried models and names of random networks first, then paths. Raises ConfigError."""
    from mpqyolo.runtime.detector import carried_models

    if text in RANDOM:
        family, size = RANDOM[text]
        return Reference(text, "random", family=family, size=size)
    carried = carried_models()
    if text in carried:
        return Reference(text, "packed", carried[text])
    path = Path(text)
    if path.is_dir():
        return Reference(text, "checkpoint", path)
    if not path.is_file():
        names = ", ".join((*carried, *RANDOM))
        raise ConfigError(f"{text}: there is no such model; give a file, a run folder, or one of: {names}")
    kind = SUFFIXES.get(path.suffix.lower()) or ("packed" if _magic(path) == MAGIC else "")
    if not kind:
        raise ConfigError(f"{text}: is no model that this program knows by its name; known endings: {', '.join(SUFFIXES)}")
    return Reference(text, kind, path)


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def open_predictor(
    text: str,
    image_size: tuple[int, int] | None,
    min_score: float,
    threads: int,
    iou: float | None = None,
    as_trained: bool = False,
) -> Predictor:
    """Whatever MODEL is, ready for photos. image_size: (height, width) px, None: as the model says. Raises MpqError.

    A checkpoint that is fully quantised computes with the integers that its file would hold, unless `as_trained`.
    """
    from mpqyolo.evaluate import predictors

    check_threads(threads)
    if iou is not None and not 0 < iou <= 1:
        raise ConfigError(f"--iou {iou:g}: must be above 0 and at most 1")
    ref = resolve(text)
    if ref.kind == "random":
        raise ConfigError(f"{text}: a network with random weights finds nothing; train one, or see `mpqyolo models`")
    if as_trained and ref.kind != "checkpoint":
        raise ConfigError(f"--as-trained is for runs and checkpoints, and {text} is none")
    options: dict[str, Any] = {"image_size": image_size, "min_score": min_score, "threads": threads, "iou": iou}
    if ref.kind == "packed":
        return predictors.packed(ref.path, **options)
    if ref.kind == "checkpoint":
        from mpqyolo.pack.folded import folded
        from mpqyolo.quantize.apply import handles
        from mpqyolo.train.checkpoint import load_checkpoint

        network, recipe = load_checkpoint(ref.path)
        options["image_size"] = image_size or (recipe.image_size, recipe.image_size)
        strengths = [float(h.quantiser.strength) for h in handles(network)]
        if strengths and min(strengths) == 1 and not as_trained:
            try:
                network = folded(network, options["image_size"])
            except PackError:  # a part is float by its policy: there is no file whose integers could be scored
                return predictors.module(network, recipe.model.classes, **options)
            return replace(predictors.module(network, recipe.model.classes, **options), backend="torch (the file's integers)")
        return predictors.module(network, recipe.model.classes, **options)
    if ref.kind == "published":
        return predictors.published(ref.path, **options)
    return predictors.onnx(ref.path, **options)


def check_threads(threads: int) -> None:
    """Raises ConfigError for a number that the engine does not take."""
    if not 1 <= threads <= 64:
        raise ConfigError(f"--threads {threads}: must be 1..64")


def only_random(ref: Reference, **options: object) -> None:
    """Raises ConfigError if one of these options is given (not None) though the model is no network with random weights."""
    for name, value in options.items():
        if value is not None and ref.kind != "random":
            raise ConfigError(f"--{name} is for networks with random weights, like n; {ref.name} has its own")


def numbered(classes: int | None) -> tuple[str, ...]:
    """Names of classes that have none, COCO's 80 if nobody says how many. Raises ConfigError for what no model can have."""
    classes = 80 if classes is None else classes
    if not 1 <= classes <= 1024:
        raise ConfigError(f"--classes {classes}: must be 1..1024")
    return tuple(str(k) for k in range(classes))


def graph_model(
    text: str, image_size: tuple[int, int] | None, classes: int | None = None, policy: str | None = None
) -> tuple[Model, int]:
    """(integer graph at this image size, bytes of its file) of a packed, trained or random model. Raises MpqError."""
    from mpqyolo.format.reader import read_model
    from mpqyolo.format.writer import dumps
    from mpqyolo.graph.ops import resize

    ref = resolve(text)
    only_random(ref, classes=classes, policy=policy)
    if ref.kind == "packed":
        model, size = read_model(ref.path), ref.path.stat().st_size
        return (replace(model, graph=resize(model.graph, *image_size)) if image_size else model), size
    if ref.kind not in ("checkpoint", "random") or ref.family == "yolov5":
        raise ConfigError(f"{text}: a float network has no packed form; give a packed file, a quantised run, or a name like s")
    from mpqyolo.pack.pack import graph_of

    if ref.kind == "checkpoint":
        from mpqyolo.train.checkpoint import load_checkpoint

        network, recipe = load_checkpoint(ref.path)
        bits = recipe.model.policy
        height, width = image_size or (recipe.image_size, recipe.image_size)
    else:
        from mpqyolo.evaluate.predictors import random_network

        bits = policy or POLICY[ref.family]
        if bits == "float":
            raise ConfigError("policy 'float' has no integers to count or to run; give another, or yolov5n to `info`")
        network = random_network(ref.family, ref.size, numbered(classes), bits)
        height, width = image_size or (640, 640)
    model = graph_of(network, height if height == width else (height, width))
    model = replace(model, policy={**model.policy, "name": bits})
    return model, len(dumps(model))
