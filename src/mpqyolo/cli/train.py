"""`mpqyolo train`: from labelled photos to a quantised detector."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mpqyolo.cli.console import Json, emit, names, say
from mpqyolo.cli.resolve import RANDOM
from mpqyolo.core.bits import POLICIES
from mpqyolo.core.errors import ConfigError

_SET = "Keys of the recipe to change: `key=value`, `section.key=value` or `stage.key=value`, the value in TOML; one or more."
_FROM = "Weights to start from: a run folder, a checkpoint, or a YOLOv5 `.pt`. Rows of the predictions go by class name."
_RESUME = "Go on with the run in --out, to the same numbers as if it had never stopped."
_POLICY = f"Bits: {', '.join(POLICIES)}; default if not given. The recipes w4a4 and float bring their own."
Policy = Annotated[str | None, Parameter(help=_POLICY)]
Set = Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=True, show_default=False, help=_SET)]
From = Annotated[str | None, Parameter(name="--from", help=_FROM)]
Resume = Annotated[bool, Parameter(negative="", show_default=False, help=_RESUME)]


def train(
    *,
    out: Path,
    data: Path | None = None,
    model: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    from_: From = None,
    resume: Resume = False,
    recipe: str | None = None,
    set_: Set = (),
    policy: Policy = None,
    family: str | None = None,
    classes: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    teacher: str | None = None,
    unlabelled: Path | None = None,
    json: Json = False,
) -> int:
    """Train a detector on labelled photos, from float to 1 and 4 bits, stage by stage.

    A run is one folder: `run.toml` (everything that decided it), `checkpoints/`, `results.csv`, `results.png`, sample pictures.
    Ctrl-C stops between two steps; so does a kill at any moment, and `--resume` goes on. With several GPUs or machines start
    it with `torchrun -m mpqyolo.cli.app train ...`.

    Parameters
    ----------
    out
        Folder of the run.
    data
        The data set: VOC, COCO or YOLO. `mpqyolo check` first.
    model
        n (if not given), s or m; or paper-n, paper-s, paper-m, yolov5n, yolov5s, yolov5m.
    image_size
        Side of the network's square input in px, a multiple of 32; 320 if not given.
    epochs
        How often each photo is seen, all stages together; as the recipe says if not given: 100 in pnq, 30 in tuned.
    batch
        Photos a step, over all processes; 16 if not given.
    recipe
        A TOML file, or pnq (the default), tuned (the default with --from), direct, two-step, w4a4, float, voc, coco. What is
        given on the command line comes after it.
    family
        mpq, paper or yolov5, if --model is a bare size.
    classes
        Train and evaluate on these classes of the data only: names with commas between them.
    seed
        Of everything random. The same seed gives the same numbers.
    device
        auto, cpu, cuda, cuda:1.
    workers
        Threads that load photos; 2 if not given.
    teacher
        Whom all stages learn from: a trained run or checkpoint, a YOLOv5 `.pt`, a TOML file that describes an ONNX detector, or
        NAME=FILE.onnx with a carried description: picodet-s, yolox-nano. Classes go by name; those that the teacher lacks learn
        from labels alone. Without it the run's own float network teaches its quantised self.
    unlabelled
        A folder tree of photos without labels, for the teacher to say what is on them.
    """
    from mpqyolo.pack.folded import folded
    from mpqyolo.pack.pack import check_packable
    from mpqyolo.train.loop import train as run_training
    from mpqyolo.train.recipe_file import load_recipe

    sections: dict[str, Any] = {
        "model": _model_section(model, family, policy, classes),
        "data": _given(
            path=None if data is None else str(data.absolute()),  # a run is resumed, and packed, from anywhere
            unlabelled=None if unlabelled is None else str(unlabelled.absolute()),
            workers=workers,
        ),
        "teacher": _teacher_section(teacher),
        **_given(image_size=image_size, epochs=epochs, batch=batch, seed=seed, device=device),
    }
    sections = {key: value for key, value in sections.items() if value != {}}
    if resume and not (sections or recipe or set_):
        settled = None
    else:
        if data is None and not resume and recipe is None:
            raise ConfigError("say on which photos: --data DATA")
        bits = sections.get("model", {}).get("policy")
        own = bits if bits in ("float", "w4a4") else "tuned" if from_ else "pnq"
        settled = load_recipe(recipe or own, set_, **sections)
        check_packable(settled.model, settled.image_size)
    result = run_training(settled, out, resume, from_, exact=folded)
    if json:
        last = result.rows[-1] if result.rows else {}
        best = None if result.best != result.best else result.best
        emit({"out": str(result.out), "checkpoint": str(result.checkpoint), "best_map": best, "best_epoch": result.best_epoch,
              "finished": result.finished, "last": last})  # fmt: skip
    else:
        run, file = (shlex.quote(str(name)) for name in (result.out, f"{result.out.resolve().name}.mpqy"))
        say(f"next: mpqyolo pack {run} --out {file}")
    return 0


def _model_section(model: str | None, family: str | None, policy: str | None, classes: str | None) -> dict[str, Any]:
    section = _given(family=family, policy=policy)
    if model is not None:
        if model not in RANDOM:
            raise ConfigError(f"--model {model}: known are {', '.join(RANDOM)}")
        named, section["size"] = RANDOM[model]
        if named != "mpq" and family not in (None, named):
            raise ConfigError(f"--model {model} is of the family {named}, not {family}; leave --family out")
        section["family"] = family or named
    if section.get("family") == "yolov5":
        section.setdefault("policy", "float")
    if classes is not None:
        section["classes"] = names(classes, "--classes")
    return section


def _teacher_section(teacher: str | None) -> dict[str, Any]:
    """A teacher that is named is listened to from the first step on. NAME=FILE.onnx says how the file is to be understood."""
    if teacher is None:
        return {}
    model, equals, path = teacher.rpartition("=")
    if not equals or not path.endswith(".onnx") or Path(teacher).exists():
        model, path = "", teacher
    if not Path(path).exists():
        raise ConfigError(f"--teacher {path}: there is no such run, checkpoint, .pt, TOML or ONNX file")
    return {"path": path, "always": True, **({"model": model} if model else {})}


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
