"""Whole runs with a teacher from outside, with photos without labels, and on chosen classes."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from train_detectors import colours_teacher, make_boxes
from train_squares import tiny_recipe

from mpqyolo.cli.train import _teacher_section
from mpqyolo.core.errors import ConfigError, DataError, InterruptError, TrainingError
from mpqyolo.data.loader import Batch
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.train import loop
from mpqyolo.train.checkpoint import BEST, LAST, load_checkpoint, load_tensors
from mpqyolo.train.inputs import load_data
from mpqyolo.train.judge import judge
from mpqyolo.train.log import Reporter
from mpqyolo.train.parallel import Ranks
from mpqyolo.train.recipe_file import load_recipe, run_recipe
from mpqyolo.train.run import Run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Notes(Reporter):
    """Keeps what it is told, and presses Ctrl-C at a step."""

    def __init__(self, stop: int = -1) -> None:
        self.said: list[str] = []
        self.stop = stop

    def say(self, message: str) -> None:
        self.said.append(message)

    def step(self, step: int, stage: str, loss: float, score: float | None) -> None:
        if step == self.stop:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven photos without labels."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(11)
    for index in range(11):
        pixels = rng.integers(90, 140, (48, 64, 3), np.uint8)
        pixels[8:40, 10:44] = (220, 40, 30) if index % 2 else (30, 60, 220)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def differences(a: Path, b: Path) -> list[str]:
    wanted, found = load_tensors(a)[0], load_tensors(b)[0]
    assert wanted.keys() == found.keys()
    return [key for key in wanted if not torch.equal(wanted[key], found[key])]


@pytest.mark.parametrize(("use", "source", "epochs"), [("maps", "pnq", 6), ("boxes", "float", 2)])
def test_with_a_teacher_and_unlabelled_photos_it_resumes_to_the_same_bits(
    squares: Path, photos: Path, tmp_path: Path, use: str, source: str, epochs: int
) -> None:
    keys = (f"epochs={epochs}", "teacher.always=true", f"teacher.use={use}", f"data.unlabelled={photos}", "teacher.box_score=0.3")
    recipe = tiny_recipe(squares, source, f"teacher.path={colours_teacher(tmp_path)}", *keys)
    whole = loop.train(recipe, tmp_path / "whole", progress=Notes())
    assert len(load_tensors(whole.checkpoint)[0]) > 50 and whole.rows[-1]["step"] == 4 * epochs  # two labelled photos a step
    price = "distil_score" if use == "maps" else "pseudo_class"
    assert all(row[price] > 0 for row in whole.rows)
    with pytest.raises(TrainingError, match="interrupted"):
        loop.train(recipe, tmp_path / "cut", progress=Notes(stop=2 * epochs - 1))
    loop.train(None, tmp_path / "cut", resume=True, progress=Notes())
    for name in (LAST, BEST):
        assert differences(tmp_path / "whole" / name, tmp_path / "cut" / name) == []
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "cut")


def test_unlabelled_photos_wait_for_the_own_teacher(squares: Path, photos: Path, tmp_path: Path) -> None:
    notes, sizes = Notes(), []

    class Watched(loop._Loop):
        def _price(self, images, targets, labelled, stage):
            sizes.append((stage.name, len(images), labelled))
            return super()._price(images, targets, labelled, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_Loop", Watched)
        recipe = tiny_recipe(squares, "pnq", f"data.unlabelled={photos}", "data.unlabelled_share=0.25")
        loop.train(recipe, tmp_path / "run", progress=notes)
    assert set(sizes) == {(s.name, 3 if s.name == "float" else 4, 3) for s in recipe.stages}
    assert notes.said[0] == "by labelled photos alone, without a teacher: float"


@pytest.mark.parametrize("until_passed", ["true", "false"])
def test_the_own_teacher_falls_silent_when_its_pupil_is_better(squares: Path, tmp_path: Path, until_passed: str) -> None:
    notes, told = Notes(), iter([0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1])  # mAP of the teacher, and of its pupil from then on

    def judged(*arguments):
        scores, model = judge(*arguments)
        return scores | {"map": next(told)}, model

    settings = ("epochs=7", "evaluate.every=1", f"teacher.until_passed={until_passed}", "float.epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "judge", judged)
        recipe = tiny_recipe(squares, "pnq", *settings, "float.share=0")
        with pytest.raises(InterruptError):
            loop.train(recipe, tmp_path / "run", progress=Notes(stop=7))
        loop.train(None, tmp_path / "run", resume=True, progress=notes)
    taught = [bool(row["distil_score"]) for row in rows_of(tmp_path / "run")]
    assert taught == ([False, True, True, False, False, False, False] if until_passed == "true" else [False, *[True] * 6])


def test_labels_price_the_labelled_photos_only(squares: Path, photos: Path, tmp_path: Path) -> None:
    part = (f"teacher.path={colours_teacher(tmp_path)}", "teacher.always=true", f"data.unlabelled={photos}", "teacher.cells=1.0")
    run = Run(tiny_recipe(squares, "float", *part), tmp_path, Ranks())
    batch: Batch = next(iter(run.loader.epoch(0)))
    assert batch.images.shape[0] == 4 and batch.labelled == 2
    run.model.eval()  # so that no image changes another's maps
    whole = loop._Loop(run, Notes(), None)._price(batch.images, batch.targets, 2, run.plan.stages[0])[1]
    with run.amp:
        maps = run.model(batch.images[:2])
    half = run.loss(maps, batch.targets, 64)[1]
    assert float(whole["box"]) == pytest.approx(float(half["box"])) and float(whole["class"]) == pytest.approx(
        float(half["class"])
    )
    one = loop._Loop(run, Notes(), None)._price(batch.images[:2], batch.targets, 2, run.plan.stages[0])[1]
    assert float(whole["distil_score"]) != pytest.approx(float(one["distil_score"]), rel=1e-3)


def test_a_run_of_another_size_and_other_classes_teaches(squares: Path, tmp_path: Path) -> None:
    wide = "model.options={stem = 16, widths = [16, 16, 16, 16], depths = [1, 1, 1, 1], neck = [16, 8, 16]}"
    loop.train(tiny_recipe(squares, "float", "epochs=1", wide, "model.classes=['blue']"), tmp_path / "wide", progress=Notes())
    keys = ("epochs=1", f"teacher.path={tmp_path / 'wide'}", "teacher.always=true", "teacher.cells=1.0")
    result = loop.train(tiny_recipe(squares, "float", *keys), tmp_path / "pupil", progress=Notes())
    assert all(result.rows[0][f"distil_{part}"] > 0 for part in ("score", "box", "hint"))
    run = Run(tiny_recipe(squares, "float", *keys), tmp_path / "none", Ranks())
    assert run.teacher(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).known.tolist() == [False, True]


def test_a_published_yolov5_teaches(squares: Path, published: tuple[Path, YOLOv5], tmp_path: Path) -> None:
    """Its classes by name, and hints, since the student is as wide."""
    path, out = str(published[0]), tmp_path / "run"
    overrides = ("epochs=1", "batch=4", "image_size=64", "data.workers=0", "teacher.always=true", "model.family=paper")
    recipe = load_recipe("float", overrides, data={"path": str(squares)}, teacher={"path": path, "backbone": 1.0}, start=path)
    loop.train(recipe, out, progress=Notes())
    (row,) = rows_of(out)
    assert all(float(row[name]) > 0 for name in ("distil_score", "distil_box", "distil_hint", "distil_backbone"))


def test_boxes_alone_want_photos_without_labels(squares: Path, photos: Path, tmp_path: Path) -> None:
    make_boxes(tmp_path / "it.onnx", np.array([[8, 8, 40, 40, 0.9, 1]]), 64)
    (tmp_path / "it.toml").write_text("weights = 'it.onnx'\nclasses = ['green', 'blue']\n[output]\nkind = 'boxes'")
    keys = ("epochs=1", f"teacher.path={tmp_path / 'it.toml'}", "teacher.always=true")
    with pytest.raises(ConfigError, match="--unlabelled DIR"):
        loop.train(tiny_recipe(squares, "float", *keys), tmp_path / "run", progress=Notes())
    recipe = tiny_recipe(squares, "float", *keys, f"data.unlabelled={photos}")
    assert loop.train(recipe, tmp_path / "run", progress=Notes()).rows[0]["pseudo_box"] > 0
    assert run_recipe(tmp_path / "run").data.unlabelled == str(photos)


def test_a_teacher_that_nobody_hears_is_told(squares: Path, photos: Path, tmp_path: Path) -> None:
    notes, path = Notes(), f"teacher.path={colours_teacher(tmp_path)}"
    loop.train(tiny_recipe(squares, "float", "epochs=1", path), tmp_path / "run", progress=notes)
    assert "no stage listens to the teacher" in notes.said[0]
    with pytest.raises(ConfigError, match="no stage learns from a teacher"):
        loop.train(tiny_recipe(squares, "float", f"data.unlabelled={photos}"), tmp_path / "b", progress=Notes())
    with pytest.raises(DataError, match="no such folder of unlabelled photos"):
        loop.train(tiny_recipe(squares, "float", path, "data.unlabelled=/none"), tmp_path / "b", progress=Notes())


def test_chosen_classes_in_training_and_evaluation(squares: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(squares, "float", "epochs=2", "evaluate.every=1", "model.classes=['blue']")
    train_set, val_set = load_data(recipe)
    assert train_set.classes == val_set.classes == ("blue",) and len(train_set) == 8  # photos without blue are background
    assert [len(item) for item in train_set.items] == [len(item) for item in val_set.items] == [0, 1] * 4
    result = loop.train(recipe, tmp_path / "run", progress=Notes())
    model, kept = load_checkpoint(tmp_path / "run")
    assert kept.model.classes == ("blue",) and model.predict.logit[0].weight.shape[0] == 1
    assert all(row["map"] is not None for row in result.rows)
    both = load_data(tiny_recipe(squares, "float", "model.classes=['blue', 'red']"))
    assert both[1].classes == ("blue", "red") and both[1].items[1].label.tolist() == [0]
    with pytest.raises(DataError, match="no class 'green'; it has: red, blue"):
        loop.train(tiny_recipe(squares, "float", "model.classes=['green']"), tmp_path / "none", progress=Notes())


def test_words_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    file.touch()
    assert _teacher_section(None) == {}
    assert _teacher_section(str(tmp_path)) == {"path": str(tmp_path), "always": True}
    assert _teacher_section(f"picodet-s={file}") == {"path": str(file), "always": True, "model": "picodet-s"}
    (odd := tmp_path / "a=b.onnx").touch()
    assert _teacher_section(str(odd)) == {"path": str(odd), "always": True}
    with pytest.raises(ConfigError, match=r"--teacher nobody: there is no such run, checkpoint, [.]pt, TOML or ONNX file"):
        _teacher_section("nobody")
