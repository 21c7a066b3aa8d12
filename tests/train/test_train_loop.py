"""Whole runs: what they leave behind, that a killed one resumes to the same bits, and what stops one."""

from __future__ import annotations

import csv
import os
import random
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_squares import make_squares, tiny_recipe

from mpqyolo.core.errors import CheckpointError, ConfigError, DataError, TrainingError
from mpqyolo.detector.maps import Maps
from mpqyolo.train import checkpoint, curves, files, loop
from mpqyolo.train.checkpoint import BEST, LAST, TEACHER, load_checkpoint, load_tensors
from mpqyolo.train.inputs import load_data
from mpqyolo.train.log import Reporter
from mpqyolo.train.parallel import processes
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import load_recipe, run_recipe
from mpqyolo.train.run import Run


class Notes(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def all_stages(squares: Path, *overrides: str) -> Recipe:
    """A recipe that has its last bits only in the last epoch, which is then the best, whatever the scores are."""
    return tiny_recipe(squares, "pnq", "bits.quantise=[{layers = 'backbone'}]", "settle.quantise=[{layers = '*'}]", *overrides)


@pytest.fixture(scope="module")
def whole(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages that nobody disturbed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    result = loop.train(all_stages(squares), out, progress=Notes())
    assert result.finished == "all epochs done" and result.checkpoint.is_file() and result.best_epoch == 6
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_run_leaves_all_its_files(whole: Path) -> None:
    for name in ("run.toml", "results.csv", "results.png", "train_batch.png", "val_predictions.png", BEST, LAST, TEACHER):
        assert (whole / name).stat().st_size > 100, name
    assert run_recipe(whole).optimiser.lr == 2.5e-3  # spelled out; of batch 4
    rows = rows_of(whole)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["stage"] for row in rows] == ["float", *["maps"] * 2, *["bits"] * 2, "settle"]
    assert all(row["map"] for row in rows if row["epoch"] in ("3", "6")) and rows[-1]["distil_box"]
    assert not list(whole.rglob("*.part"))


def test_the_checkpoint_is_fully_quantised_and_the_teacher_float(whole: Path) -> None:
    model, recipe = load_checkpoint(whole)
    assert recipe.model.classes == ("red", "blue") and not model.training
    best, last, teacher = (load_tensors(whole / name)[0] for name in (BEST, LAST, TEACHER))
    strengths = {name for name in best if name.endswith("strength")}
    assert strengths and all(best[name] == 1 for name in strengths) and all(teacher[name] == 0 for name in strengths)
    assert all(torch.equal(value.cpu(), best[name]) for name, value in model.state_dict().items())
    weights = [name for name, _ in model.named_parameters()]
    assert all(torch.equal(best[name], last[f"ema/{name}"]) for name in weights)
    statistics = [name for name in best if name.endswith("running_mean")]
    assert any(not torch.equal(best[name], last[f"ema/{name}"]) for name in statistics)  # they were re-estimated


def in_child(work: Callable[[], Any]) -> int:
    """Run `work` in a forked process; its exit status: 0 well, 1 an exception, -9 killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_anywhere_it_resumes_to_the_same_bits(squares: Path, whole: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "run", all_stages(squares)
    chance = random.Random(5)
    kills = 0
    for attempt in range(60):
        # Later attempts live longer, so that the run ends even on a slow and busy machine.
        patience = chance.uniform(0.1, 1.0) * 1.1**attempt

        def work(patience: float = patience) -> None:
            torch.set_num_threads(1)
            timer = threading.Timer(patience, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
            loop.train(recipe, out, resume=(out / "run.toml").is_file(), progress=Notes())

        status = in_child(work)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert status == 0 and kills >= 2
    for name in (LAST, BEST, TEACHER):
        wanted, found = load_tensors(whole / name)[0], load_tensors(out / name)[0]
        assert wanted.keys() == found.keys()
        assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == [], name
    assert rows_of(out) == rows_of(whole)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_a_file_takes_its_name(squares: Path, whole: Path, tmp_path: Path, moment: str) -> None:
    """Every file of the run in turn: killed just before, or just after, it appears."""
    out, recipe, calls = tmp_path / "run", all_stages(squares), 0
    settle, pace = files.settle, 5

    def work(stop: int) -> None:
        torch.set_num_threads(1)
        seen = 0

        def counted(path: Path) -> None:
            nonlocal seen
            seen += 1
            if moment == "after":
                settle(path)
            if seen == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            if moment == "before":
                settle(path)

        for module in (files, checkpoint, curves):
            module.settle = counted
        loop.train(recipe, out, resume=(out / "run.toml").is_file(), progress=Notes())

    while (status := in_child(partial(work, pace + calls % 3))) != 0:
        assert status == -signal.SIGKILL and calls < 40
        calls += 1
    assert calls >= 3
    wanted, found = load_tensors(whole / LAST)[0], load_tensors(out / LAST)[0]
    assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == []
    assert rows_of(out) == rows_of(whole)


def test_ctrl_c_saves_and_says_how_to_go_on(squares: Path, whole: Path, tmp_path: Path) -> None:
    class Impatient(Reporter):
        def step(self, step: int, stage: str, loss: float, score: float | None) -> None:
            if step == 5:
                signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"interrupted at step \d+; go on with: mpqyolo train --resume --out"):
        loop.train(all_stages(squares, "save_steps=1000"), out, progress=Impatient())
    assert load_tensors(out / LAST)[1]["position"]["step"] in (5, 6)
    notes = Notes()
    loop.train(tiny_recipe(squares, "pnq", "epochs=99"), out, resume=True, progress=notes)
    assert "a run keeps its recipe" in notes.said[0] and "resuming" in notes.said[1]
    wanted, found = load_tensors(whole / BEST)[0], load_tensors(out / BEST)[0]
    assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == []


def test_two_processes_hold_the_same_weights(squares: Path, tmp_path: Path) -> None:
    """Under torchrun's environment: equal weights, buffers and averages on both ranks, other than one process alone has."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recipe = tiny_recipe(squares, "pnq", "maps.ramp=none")

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        kept: list[Run] = []

        class Kept(Run):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                kept.append(self)

        loop.Run = Kept
        loop.train(recipe, tmp_path / "run", progress=Notes())
        states = {**kept[0].model.state_dict(), **{f"ema/{k}": v for k, v in kept[0].ema.model.state_dict().items()}}
        checkpoint.save_tensors(tmp_path / f"{rank}.safetensors", states, {})

    children = [threading.Thread(target=lambda rank=rank: statuses.append(in_child(lambda: work(rank)))) for rank in (0, 1)]
    statuses: list[int] = []
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert statuses == [0, 0]
    first, second = (load_tensors(tmp_path / f"{rank}.safetensors")[0] for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any("quantiser.log_scale" in name for name in first) and any("log_ratio" in name for name in first)
    assert len(rows_of(tmp_path / "run")) == 6


def test_nan_stops_the_run_with_the_layers_name(squares: Path, tmp_path: Path) -> None:
    class Poison(Reporter):
        def begin(self, *_: Any) -> None:
            with torch.no_grad():
                runs[0].model.get_parameter("neck." + name).fill_(float("nan"))

    runs: list[Run] = []

    class Kept(Run):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            runs.append(self)

    recipe = tiny_recipe(squares, "float")
    name = next(
        n
        for n, _ in checkpoint.make_model(recipe.model.model_copy(update={"classes": ("red", "blue")})).neck.named_parameters()
        if n.endswith("weight")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Run", Kept)
        with pytest.raises(TrainingError, match=f"the loss is nan at step 0, first in parameter 'neck.{name}'"):
            loop.train(recipe, tmp_path / "run", progress=Poison())
    assert not (tmp_path / "run" / LAST).exists()


def test_a_rate_out_of_reason_is_stopped(squares: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        squares, "float", "optimiser.lr=1e30", "optimiser.kind=sgd", "optimiser.weight_decay=0", "optimiser.clip=0", "epochs=20"
    )
    with pytest.raises(TrainingError, match=r"lower optimiser\.lr|layer"):
        loop.train(recipe, tmp_path / "run", progress=Notes())


def test_patience_ends_a_run_early(squares: Path, tmp_path: Path) -> None:
    overrides = ("epochs=40", "evaluate.every=1", "evaluate.patience=2", "optimiser.lr=1e-9", "ema_decay=0")
    result = loop.train(tiny_recipe(squares, "float", *overrides), tmp_path / "run", progress=Notes())
    assert result.finished == "no better mAP in 2 evaluations" and len(result.rows) < 40
    again = loop.train(None, tmp_path / "run", resume=True, progress=Notes())
    assert again.rows == result.rows and again.best == result.best


def test_start_from_a_run_lists_what_does_not_fit(squares: Path, whole: Path, tmp_path: Path) -> None:
    notes = Notes()
    recipe = tiny_recipe(
        squares, "float", "epochs=1", "model.options.neck=[8, 8, 16]", "model.classes=['blue']", "optimiser.lr=1e-12"
    )
    loop.train(recipe, tmp_path / "run", from_=whole, progress=notes)
    text = "\n".join(notes.said)
    assert "tensors taken" in text and "of another shape" in text and "only in it" in text and "quantiser" in text
    old, _ = load_checkpoint(whole)
    new, recipe = load_checkpoint(tmp_path / "run")
    assert recipe.start == str(whole)
    blue = old.predict.logit[0].weight[1].detach(), new.predict.logit[0].weight[0].detach()
    assert torch.allclose(*blue, atol=1e-6)
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        loop.train(recipe, tmp_path / "other", from_=squares, progress=notes)


def test_folders_that_hold_a_run_and_folders_that_do_not(squares: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add --resume"):
        loop.train(tiny_recipe(squares), whole)
    with pytest.raises(ConfigError, match="no run to resume"):
        loop.train(None, tmp_path / "nothing", resume=True)
    with pytest.raises(ConfigError, match="untrained network"):
        loop.train(tiny_recipe(squares, "pnq", "float.share=0"), tmp_path / "pupil", progress=Notes())
    with pytest.raises(ConfigError, match="say --data"):
        loop.train(load_recipe("float"), tmp_path / "blind", progress=Notes())


def test_splits_that_cannot_be_trained_or_judged_on_are_refused(squares: Path, tmp_path: Path) -> None:
    """At once, not at the first evaluation."""
    data = make_squares(tmp_path / "data")
    photos = tmp_path / "photos.txt"
    photos.write_text("".join(f"data/images/{index}.png\n" for index in range(8)))
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    with pytest.raises(ConfigError, match=r"photos\.txt: is one split.* --set data\.val=train"):
        load_data(tiny_recipe(photos))
    both = load_data(tiny_recipe(photos, "pnq", "data.val=train"))
    assert [item.path for item in both[0].items] == [item.path for item in both[1].items]
    empty = data / "empty"
    empty.mkdir()
    (data / "images" / "0.png").rename(empty / "0.png")
    (data / "data.yaml").write_text("train: images\nval: empty\nnames: [red, blue]\n")
    with pytest.raises(DataError, match="split 'val' has no box of red, blue; label some, or choose other classes"):
        load_data(tiny_recipe(data))


def test_one_numbered_gpu_is_not_for_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match="device 'cuda:1' cannot serve 2 processes"), processes("cuda:1"):
        pass


def test_a_teacher_from_another_run(squares: Path, tmp_path: Path) -> None:
    loop.train(tiny_recipe(squares, "float", "epochs=1"), tmp_path / "float", progress=Notes())
    recipe = tiny_recipe(squares, "direct", "epochs=2", "quantised.distil=true", f"teacher.path={tmp_path / 'float'}")
    loop.train(recipe, tmp_path / "pupil", progress=Notes())
    assert all(float(row["distil_score"]) > 0 for row in rows_of(tmp_path / "pupil"))
    assert isinstance(load_checkpoint(tmp_path / "pupil")[0](torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), Maps)
    assert isinstance(load_checkpoint(tmp_path / "float")[0], nn.Module)


def test_its_own_network_does_not_teach_what_it_has_not_seen(squares: Path, tmp_path: Path) -> None:
    """The float network learns from 32 px; when images become 64 px, halfway, it teaches no more, and the run says so."""
    notes = Notes()
    loop.train(tiny_recipe(squares, "pnq", "grow=[[0.5, 32]]"), tmp_path / "run", progress=notes)
    assert any("learns from images of 32 px and teaches no more from epoch 4 on" in line for line in notes.said)
    taught = [float(row["distil_score"] or 0) > 0 for row in rows_of(tmp_path / "run")]
    assert taught == [False, True, True, False, False, False]
    with torch.random.fork_rng():
        said = Notes()
        loop.train(tiny_recipe(squares, "pnq", "grow=[[0.1, 32]]"), tmp_path / "early", progress=said)
    assert not any("teaches no more" in line for line in said.said)
