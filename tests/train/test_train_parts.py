"""Average, batch-norm statistics, optimiser groups, oscillation: each alone."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.train import checkpoint, curves, log
from mpqyolo.train.ema import Ema, reestimate_bn
from mpqyolo.train.optim import load_optimiser_state, make_optimiser, optimiser_state, set_rate
from mpqyolo.train.oscillation import Oscillation, Weight
from mpqyolo.train.recipe import OptimiserPart
from mpqyolo.train.recipe_file import load_recipe


def test_ema_averages_parameters_copies_buffers_and_fresh_scales() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    ema = Ema(model)
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[1].weight, 5.0)
    model[1].running_mean.fill_(3.0)
    ema.update(decay=0.9, fresh={"1.weight"})
    weight = 1 - 2 / 11  # the first update after a restart: (1 + 1) / (10 + 1) of the old average stays
    assert torch.allclose(ema.model[0].weight, torch.full((1, 2), 1 + weight))
    assert ema.model[1].weight.item() == 5.0 and ema.model[1].running_mean.item() == 3.0
    for _ in range(200):
        ema.update(decay=0.9)
    assert torch.allclose(ema.model[0].weight, model[0].weight)
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_reestimated_statistics_are_the_mean_over_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].running_mean.fill_(99.0)
    batches = [torch.randn(5, 3, 6, 6) for _ in range(3)]
    momentum = model[1].momentum
    reestimate_bn(model, batches)
    outputs = [model[0](batch) for batch in batches]
    assert torch.allclose(model[1].running_mean, torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var, torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0), atol=1e-5)
    assert model[1].momentum == momentum and not model.training


def test_only_plain_weights_decay_and_stopped_kinds_stand_still() -> None:
    model = nn.ParameterDict({kind: nn.Parameter(torch.ones(3)) for kind in ("weight", "latent", "norm", "scale")})
    kinds = {kind: kind for kind in model}
    part = OptimiserPart(lr=0.1, weight_decay=0.5, scale_lr=0.1, latent_lr=0.5)
    optimiser = make_optimiser(model, kinds, part)
    set_rate(optimiser, 0.1, part, {"weight", "latent", "scale"})
    for parameter in model.values():
        parameter.grad = torch.zeros(3)
    optimiser.step()
    assert torch.allclose(model["weight"], torch.full((3,), 0.95))
    assert all(torch.equal(model[kind], torch.ones(3)) for kind in ("latent", "norm", "scale"))
    for parameter in model.values():
        parameter.grad = torch.ones(3)
    optimiser.step()
    moved = {kind: abs(1 - float(model[kind][0].detach())) for kind in ("latent", "norm", "scale")}
    assert moved["norm"] == 0 and moved["latent"] == pytest.approx(5 * moved["scale"], rel=1e-3)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_optimiser_state_goes_through_a_file(tmp_path: Path, kind: str) -> None:
    def step(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return model, make_optimiser(
            model, {"weight": "weight", "bias": "norm"}, OptimiserPart(kind=kind, lr=0.01, weight_decay=1e-3)
        )

    model, optimiser = fresh()
    step(model, optimiser, 1)
    checkpoint.save_tensors(tmp_path / "o", optimiser_state(optimiser) | dict(model.state_dict()), {"x": 0.1})
    step(model, optimiser, 2)
    other, restored = fresh()
    tensors, record = checkpoint.load_tensors(tmp_path / "o")
    other.load_state_dict({name: tensors.pop(name) for name in ("weight", "bias")})
    load_optimiser_state(restored, tensors)
    step(other, restored, 2)
    assert record == {"x": 0.1} and torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
    with pytest.raises(CheckpointError, match="'gone'"):
        load_optimiser_state(restored, {"gone/step": torch.zeros(())})


class Halves:
    """Codes at whole multiples of a scale."""

    scale = 1.0

    def codes(self, w: torch.Tensor) -> torch.Tensor:
        return (w / self.scale).round()

    def values(self, code: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return code * self.scale


def test_only_what_turns_back_and_forth_is_held() -> None:
    parameter = nn.Parameter(torch.tensor([0.4, 0.0, 0.4]))
    coder = Halves()
    watch = Oscillation({"a": Weight(parameter, torch.tensor([0.8, 0.0, 5.0]), coder)})
    for step in range(12):
        with torch.no_grad():
            parameter[0] = 0.6 if step % 2 else 0.4  # turns back at every step
            parameter[2] = 0.4 + step  # moves on, always upwards
        watch.update(0.03, {"a"})
    assert watch.held() == pytest.approx(1 / 3)
    assert parameter[0].item() == 1.0 and parameter[2].item() == pytest.approx(11.4)
    coder.scale = 1.5
    watch.update(0.03, {"a"})
    assert parameter[0].item() == 1.5  # what is held is the code
    with torch.no_grad():
        parameter[0] = 0.4
    watch.update(0.03, ())
    assert parameter[0].item() == pytest.approx(0.4)  # a layer that is not named is left alone


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    """And what was there is whole."""
    file = tmp_path / "x.safetensors"
    checkpoint.save_tensors(file, {"a": torch.ones(3)}, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"x\.safetensors: cannot be written: .*make room") as fault:
            checkpoint.save_tensors(file, {"a": torch.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(fault.value) and torch.equal(checkpoint.load_tensors(file)[0]["a"], torch.ones(3))


def test_curves_and_csv(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "stage": "float", "loss": 2.0, "lr": 0.1, "map": None},
        {"epoch": 2, "stage": "end", "loss": 1.0, "lr": 0.1, "map": 0.5, "distil_box": 0.25},
    ]
    curves.write_csv(tmp_path / "r.csv", rows)
    curves.draw_curves(tmp_path / "r.png", rows, [("float", 0.0), ("$end_$", 1.0)])  # a name is no formula
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines == ["epoch,stage,loss,lr,map,distil_box", "1,float,2,0.1,,", "2,end,1,0.1,0.5,0.25"]
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 nothing")
    for path in (file, tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(CheckpointError) as fault:
            checkpoint.load_tensors(checkpoint.find(path))
        assert "\n" not in str(fault.value) and str(tmp_path) in str(fault.value)


def test_a_stage_may_have_brackets_in_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = log.TerminalReporter()
    reporter.begin(1, 0, 16, float)
    reporter.step(1, "[/w1]", 1.0, None)
    assert "[/w1]: step 1/1" in capsys.readouterr().err


def test_time_left_counts_pixels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten epochs of two steps: five at 160 px, ten seconds each, have passed; the five at 320 px are four times the work."""
    recipe = load_recipe("float", ["epochs=10", "image_size=320", "grow=[[0.5, 160]]"], data={"path": "."})
    pixels = [recipe.side(epoch) ** 2 for epoch in range(10) for _ in range(2)]
    clock = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: clock[0])
    reporter = log.TerminalReporter()
    reporter.begin(20, 0, 16, lambda step: recipe.share(step / 2))
    assert [recipe.share(step / 2) for step in (0, 10, 20)] == [0, sum(pixels[:10]) / sum(pixels), 1]
    clock[0] = 100.0
    reporter.step(10, "float", 1.0, 0.5)
    assert "step 10/20  loss 1.000  mAP 0.500  1.6 images/s  6m 40s left" in capsys.readouterr().err
