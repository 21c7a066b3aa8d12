"""Runs that cannot go on as asked: a clear line at once, and a word about whatever has no effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_squares import make_squares, tiny_recipe

from mpqyolo.core.errors import CheckpointError, ConfigError, DataError
from mpqyolo.train import loop
from mpqyolo.train.checkpoint import LAST, load_tensors, save_tensors
from mpqyolo.train.files import held
from mpqyolo.train.inputs import pick_device
from mpqyolo.train.log import Reporter
from mpqyolo.train.parallel import Ranks
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import run_recipe
from mpqyolo.train.run import Run
from mpqyolo.train.stages import Setting


class Notes(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def said(recipe: Recipe | None, out: Path, **options: object) -> list[str]:
    """What a run tells."""
    notes = Notes()
    loop.train(recipe, out, progress=notes, **options)
    return notes.said


def test_going_on_tells_only_of_options_that_differ(squares: Path, tmp_path: Path) -> None:
    recipe, out = tiny_recipe(squares, "float", "epochs=1"), tmp_path / "run"
    said(recipe, out)
    assert [line for line in said(recipe, out, resume=True) if "keeps its recipe" in line] == []
    longer, other = tiny_recipe(squares, "float", "epochs=2"), tiny_recipe(squares, "float", "epochs=1", "model.classes=['red']")
    for changed in (
        {"recipe": longer},
        {"recipe": other},
        {"recipe": recipe, "from_": squares},
        {"recipe": None, "from_": squares},
    ):
        assert "a run keeps its recipe" in said(out=out, resume=True, **changed)[0]


def test_a_run_is_resumed_from_anywhere(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said(tiny_recipe(squares, "float", "epochs=1"), tmp_path / "teacher")
    monkeypatch.chdir(squares.parent)
    (tmp_path / "run").symlink_to(tmp_path / "teacher")  # a relative path of which there is no other
    monkeypatch.chdir(tmp_path)
    data = make_squares(tmp_path / "data").relative_to(tmp_path)
    said(tiny_recipe(data, "float", "epochs=1", "teacher.path=run", "teacher.always=true"), tmp_path / "pupil", from_="run")
    recipe = run_recipe(tmp_path / "pupil")
    assert (recipe.data.path, recipe.teacher.path, recipe.start) == tuple(str(tmp_path / name) for name in ("data", "run", "run"))
    monkeypatch.chdir(squares)
    assert "resuming" in said(None, tmp_path / "pupil", resume=True)[0]


def test_photos_that_came_or_went_since_are_told(tmp_path: Path) -> None:
    data = make_squares(tmp_path / "data")
    recipe = tiny_recipe(data, "float", "epochs=2")
    said(recipe, tmp_path / "run")
    for photo in sorted((data / "images").iterdir())[4:]:
        photo.unlink()
    with pytest.raises(DataError, match="an epoch takes 1 steps now, other than when the run began"):
        said(None, tmp_path / "run", resume=True)


@pytest.mark.parametrize("record", [{}, {"position": {"epoch": 1, "unknown": 2}}, {"position": 3}, []])
def test_a_checkpoint_that_says_no_position(squares: Path, tmp_path: Path, record: object) -> None:
    said(tiny_recipe(squares, "float", "epochs=1"), tmp_path)
    save_tensors(tmp_path / LAST, load_tensors(tmp_path / LAST)[0], record)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: does not say where the run stood"):
        said(None, tmp_path, resume=True)


def test_fewer_photos_than_a_step_asks_for(squares: Path, tmp_path: Path) -> None:
    notes = said(tiny_recipe(squares, "float", "epochs=1", "batch=64"), tmp_path / "few")
    assert notes[0] == "batch: a step takes 8 of 64 photos, since there are no more; the default rate is that of 64"
    with pytest.raises(ConfigError, match="one labelled photo of 32 px a step is too little for batch norm"):
        said(tiny_recipe(squares, "float", "epochs=1", "batch=1", "image_size=32"), tmp_path / "one")


def test_bits_that_a_layer_cannot_have_are_refused_at_once(squares: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(squares, "pnq", "maps.quantise=[{layers = '*', bits = 2}]", "model.switches={ste = 'clip'}")
    with pytest.raises(ConfigError, match=r"stage 'maps': the activations of layer 'backbone\..* cannot have 2 bits"):
        Run(recipe, tmp_path, Ranks())


def test_a_stage_that_is_left_out_has_no_pupils(squares: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(squares, "pnq", "maps.distil=false", "bits.distil=false", "settle.share=0")
    assert Run(recipe, tmp_path, Ranks()).teaching is None


def test_a_description_of_nothing_is_told(squares: Path, tmp_path: Path) -> None:
    assert (
        "teacher.model = 'picodet-s' has no effect" in said(tiny_recipe(squares, "float", "teacher.model=picodet-s"), tmp_path)[0]
    )


def test_a_teacher_that_is_not_there(squares: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(squares, "float", "teacher.path=/nowhere", "teacher.always=true")
    with pytest.raises(CheckpointError, match="/nowhere: there is no such checkpoint"):
        Run(recipe, tmp_path, Ranks())


def test_only_weights_of_their_last_bits_are_held(squares: Path, tmp_path: Path) -> None:
    """A code of 8 bits means another value at 4; a weight that is still float has none."""
    run = Run(tiny_recipe(squares, "w4a4", "bits-8.freeze_oscillating=1e-9"), tmp_path, Ranks())
    held = []
    run.oscillation.update = lambda threshold, names: held.append(set(names))
    for stage in ("float", "bits-8", "bits-4"):
        run.position.step = run.plan.starts[[s.name for s in run.plan.stages].index(stage)]
        run.configure()
        run.hold_oscillating(1e-9)
    weights = {slot: setting for slot, setting in run.settings.items() if slot.part == "weight"}
    assert held[0] == set() and held[2] == {slot.layer for slot in weights}
    assert held[1] == {slot.layer for slot in weights if slot.bits == 8} and all(
        s == Setting(1.0, slot.bits) for slot, s in weights.items()
    )


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mps", "meta", "xpu", "gpu"):
        with pytest.raises(ConfigError, match=f"device '{name}' is unknown; use auto, cpu or cuda"):
            pick_device(name, Ranks())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, ranks in (("cuda:2", Ranks()), ("auto", Ranks(2, 4, 2))):
        with pytest.raises(ConfigError, match="there is no GPU 2: this machine has 2"):
            pick_device(name, ranks)


def test_a_folder_has_one_training_at_a_time(squares: Path, tmp_path: Path) -> None:
    recipe, out = tiny_recipe(squares, "float", "epochs=1"), tmp_path / "run"
    with held(out), pytest.raises(ConfigError, match="a training is running in it"):
        said(recipe, out)
    assert not out.exists()
    said(recipe, out)
    with held(out), pytest.raises(ConfigError, match="a training is running in it"):
        said(None, out, resume=True)
    with pytest.raises(ConfigError), held(tmp_path / "deep" / "run"):
        raise ConfigError("bad data")
    assert not (tmp_path / "deep" / "run").exists()


def test_patience_waits_for_the_last_stage(squares: Path, tmp_path: Path) -> None:
    settings = ("epochs=10", "evaluate.every=1", "evaluate.patience=1", "optimiser.lr=1e-9", "ema_decay=0")
    result = loop.train(tiny_recipe(squares, "pnq", *settings), tmp_path / "run", progress=Notes())
    assert result.finished == "no better mAP in 1 evaluations"
    assert [row["stage"] for row in result.rows[-3:]] == ["bits", "bits", "settle"]
