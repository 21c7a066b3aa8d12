"""The schedule as tables: which quantiser is how strong at which step, and at what rate."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import ConfigError
from mpqyolo.train.recipe_file import load_recipe, names
from mpqyolo.train.stages import Plan, Setting, Slot, make_plan

SLOTS = [
    Slot("stem.conv", "weight", 8),
    Slot("backbone.0.conv", "activation", 1),
    Slot("backbone.0.conv", "weight", 1),
    Slot("backbone.1.conv", "activation", 1),
    Slot("backbone.1.conv", "weight", 1),
    Slot("neck.0", "activation", 4),
    Slot("neck.0", "weight", 4),
    Slot("predict.0", "activation", 4),
    Slot("predict.0", "weight", 8),
]


def plan_of(name: str, *overrides: str, steps_per_epoch: int = 10) -> Plan:
    return make_plan(load_recipe(name, overrides), steps_per_epoch)


def strengths(plan: Plan, step: int) -> list[float]:
    return [round(setting.strength, 3) for setting in plan.settings(SLOTS, step).values()]


def test_pnq_table() -> None:
    """100 epochs of 10 steps: stages begin at 0, 250, 500, 900."""
    plan = plan_of("pnq", "maps.ramp=none")
    assert plan.starts == (0, 250, 500, 900) and plan.steps == 1000
    table = {
        249: ([0, 0, 0, 0, 0, 0, 0, 0, 0], 4),
        250: ([1, 1, 0, 1, 0, 1, 1, 1, 1], 8),
        499: ([1, 1, 0, 1, 0, 1, 1, 1, 1], 8),
        500: ([1, 1, 1, 1, 1, 1, 1, 1, 1], 4),
        999: ([1, 1, 1, 1, 1, 1, 1, 1, 1], 4),
    }
    for step, (strength, neck_bits) in table.items():
        found = plan.settings(SLOTS, step)
        assert strengths(plan, step) == strength, step
        assert found[Slot("neck.0", "weight", 4)].bits == found[Slot("predict.0", "activation", 4)].bits == neck_bits
        assert found[Slot("predict.0", "weight", 8)].bits == 8 and found[Slot("backbone.0.conv", "weight", 1)].bits == 1
    assert not plan.final(SLOTS, 499) and plan.final(SLOTS, 500)


def test_one_bit_maps_may_have_had_two(tmp_path: Path) -> None:
    """Weights that become signs have no way between."""
    recipe = tmp_path / "down.toml"
    recipe.write_text(
        """
stages = [
  {name = "two", share = 0.5, quantise = [{layers = "*", bits = 2}]},
  {name = "one", share = 0.5, quantise = [{layers = "*"}]},
]
"""
    )
    plan = plan_of(str(recipe), "epochs=2")
    bits = [[setting.bits for setting in plan.settings(SLOTS, step).values()] for step in (0, 10)]
    assert bits == [[8, 2, 1, 2, 1, 4, 4, 4, 8], [8, 1, 1, 1, 1, 4, 4, 4, 8]]
    assert not plan.final(SLOTS, 0) and plan.final(SLOTS, 10)


@pytest.mark.parametrize(("ramp", "first"), [("shallow-first", 1), ("deep-first", 3)])
def test_a_ramp_takes_one_layer_after_the_other(ramp: str, first: int) -> None:
    """Two layers over 0.8 of 250 steps: each blends for 100."""
    backbone = "maps.quantise=[{layers = 'backbone', part = 'activation'}]"
    plan = plan_of("pnq", backbone, f"maps.ramp={ramp}", "maps.ramp_share=0.8")
    second = 4 - first
    for step, expected in [
        (250, (0.01, 0)),
        (299, (0.5, 0)),
        (349, (1, 0)),
        (350, (1, 0.01)),
        (399, (1, 0.5)),
        (449, (1, 1)),
        (499, (1, 1)),
    ]:
        found = strengths(plan, step)
        assert (found[first], found[second]) == expected, step
        assert sum(found) == sum(expected)


def test_new_bits_blend_from_float_again() -> None:
    plan = plan_of("w4a4", "bits-4.ramp=shallow-first", "bits-4.ramp_share=1")
    early = plan.settings(SLOTS[5:7], 500)
    assert all(setting.bits == 4 and setting.strength < 0.01 for setting in early.values())
    assert plan.settings(SLOTS, 899)[SLOTS[6]] == Setting(1.0, 4)


def test_shares_and_absolute_epochs() -> None:
    plan = plan_of("two-step", "epochs=10", "weights.share=0", "weights.epochs=4", steps_per_epoch=3)
    assert plan.starts == (0, 18) and plan.steps == 30
    plan = plan_of("pnq", "float.share=0")
    assert plan.starts[:2] == (0, 0) and plan.stage(0).name == "maps"


def test_too_few_steps_for_all_stages() -> None:
    with pytest.raises(ConfigError, match=r"stage 'settle' gets no step: 2 epochs of 2 steps"):
        plan_of("pnq", "epochs=2", steps_per_epoch=2)


def test_rate() -> None:
    plan = plan_of("two-step", "optimiser.warmup_epochs=2", "optimiser.lr_end=0.1", "weights.lr=0.5")
    assert plan.lr(0) == pytest.approx(1 / 21) and plan.lr(19) == pytest.approx(20 / 21) and plan.lr(20) == 1
    assert plan.lr(260) == pytest.approx(0.55) and plan.lr(499) == pytest.approx(0.1, abs=1e-3)
    assert plan.lr(500) == pytest.approx(0.5 / 21) and plan.lr(520) == 0.5 and plan.lr(999) == pytest.approx(0.05, abs=1e-3)


def test_a_warm_up_of_few_steps_takes_ten() -> None:
    short = plan_of("float", "optimiser.warmup_epochs=2", "epochs=200", steps_per_epoch=1)
    assert short.lr(0) == pytest.approx(1 / 11) and short.lr(10) == 1
    assert plan_of("float", "optimiser.warmup_epochs=0", "epochs=200", steps_per_epoch=1).lr(0) == 1
    assert plan_of("float", "optimiser.warmup_epochs=2", "epochs=20", steps_per_epoch=1).lr(2) == 1  # a tenth of all at most


@pytest.mark.parametrize("name", [name for name in names() if name != "float"])
def test_carried_recipes_quantise_everything(name: str) -> None:
    plan_of(name).check(SLOTS)


def test_a_layer_that_would_stay_float_is_named() -> None:
    with pytest.raises(ConfigError, match=r"weight of layer 'stem.conv' to the 8 bits"):
        plan_of("float").check(SLOTS)


def test_what_a_stage_names_must_be_there() -> None:
    for layers in ("backbon", "backbone.9*"):
        plan = plan_of("pnq", f"maps.quantise=[{{layers = '{layers}'}}]")
        with pytest.raises(
            ConfigError, match=rf"stage 'maps': '{layers}' matches no layer .* begin with: .*backbone\.0".replace("9*", r"9\*")
        ):
            plan.check(SLOTS)
        plan.check([])  # a policy without bits
    plan_of("pnq", "maps.quantise=[{layers = 'backbone.1*'}]").check(SLOTS)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(names()), st.integers(8, 40), st.integers(3, 30), st.sampled_from(["none", "shallow-first", "deep-first"]))
def test_strength_only_grows_unless_bits_change(name: str, epochs: int, steps: int, ramp: str) -> None:
    recipe = load_recipe(name, [f"epochs={epochs}"])
    stages = tuple(stage.model_copy(update={"ramp": ramp}) for stage in recipe.stages)
    plan = make_plan(recipe.model_copy(update={"stages": stages}), steps)
    before = plan.settings(SLOTS, 0)
    for step in range(plan.steps):
        now = plan.settings(SLOTS, step)
        for slot in SLOTS:
            assert now[slot].strength >= before[slot].strength or now[slot].bits < before[slot].bits
        assert 0 <= plan.lr(step) <= 1
        before = now
    if name != "float":
        assert all(setting == Setting(1.0, slot.bits) for slot, setting in plan.settings(SLOTS, plan.steps).items())
