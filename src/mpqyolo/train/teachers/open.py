"""Opening the teacher that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

from torch import nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.detector.yolov5_load import open_yolov5
from mpqyolo.train.checkpoint import load_checkpoint
from mpqyolo.train.recipe import Recipe, TeacherPart
from mpqyolo.train.recipe_file import RUN_FILE
from mpqyolo.train.teachers.description import carried, read_description
from mpqyolo.train.teachers.lesson import AsBoxes, Teacher, match
from mpqyolo.train.teachers.network import NetworkTeacher
from mpqyolo.train.teachers.onnx import OnnxTeacher
from mpqyolo.train.teachers.published import PublishedTeacher


def open_teacher(
    part: TeacherPart,
    classes: Sequence[str],
    place: Callable[[nn.Module], nn.Module],
    amp: AbstractContextManager[object],
) -> Teacher:
    """The teacher at `part.path`: a run, a checkpoint, a YOLOv5 `.pt`, an ONNX file's description, or such a file and `model`.

    place: brings a network to the device. amp: the precision of networks of ours. Raises ConfigError or CheckpointError.
    """
    path = Path(part.path)
    teacher: Teacher
    if path.suffix == ".onnx" or (path.suffix == ".toml" and path.name != RUN_FILE):
        teacher = _described(part, path, classes)
    elif path.suffix == ".pt":
        published, names = open_yolov5(path)
        found = match(classes, names, part.path)
        teacher = PublishedTeacher(cast(YOLOv5, place(published.fuse().requires_grad_(False))), found, amp)
    else:
        model, recipe = load_checkpoint(path.parent if path.name == RUN_FILE else path)
        names = recipe.model.classes
        same = tuple(names) == tuple(classes)
        teacher = NetworkTeacher(
            place(model.eval().requires_grad_(False)), None if same else match(classes, names, part.path), amp
        )
    return AsBoxes(teacher, part.box_score) if part.use == "boxes" and teacher.dense else teacher


def _described(part: TeacherPart, path: Path, classes: Sequence[str]) -> Teacher:
    if path.suffix == ".onnx" and not part.model:
        raise ConfigError(
            f"{path}: what its outputs mean is not said; set teacher.model (--teacher NAME={path}) to one of "
            f"{', '.join(carried())}, or to a TOML file that describes it (docs/training.md)"
        )
    about, weights = read_description(part.model if path.suffix == ".onnx" else path)
    file = path if path.suffix == ".onnx" else weights
    if file is None:
        raise ConfigError(f"{path}: names no ONNX file; add weights = '...', from the folder of this file")
    return OnnxTeacher(about, file, classes, part.threads, part.box_score)


def check_teaching(recipe: Recipe, teacher: Teacher | None) -> list[str]:
    """Raise ConfigError if a teacher and the unlabelled photos have nothing to do with each other; return what to tell."""
    data, part = recipe.data, recipe.teacher
    stages = [stage for stage in recipe.stages if not stage.empty]
    deaf = [stage.name for stage in stages if not recipe.listens(stage)]
    idle = part.model and Path(part.path).suffix != ".onnx"
    notes = (
        [f"teacher.model = '{part.model}' has no effect: it describes an ONNX file, and teacher.path names none"] if idle else []
    )
    if len(deaf) == len(stages):
        if data.unlabelled:
            raise ConfigError("data.unlabelled: no stage learns from a teacher; say --teacher, or distil = true in a stage")
        return [*notes, *([f"no stage listens to the teacher {part.path}; say teacher.always = true"] if part.path else [])]
    if not data.unlabelled and (part.use == "boxes" or (teacher is not None and not teacher.dense)):
        raise ConfigError("a teacher's boxes are labels for photos that have none: say --unlabelled DIR, or take another teacher")
    if data.unlabelled and deaf:
        notes.append(f"by labelled photos alone, without a teacher: {', '.join(deaf)}")
    return notes
