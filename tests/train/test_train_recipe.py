"""Recipes: what they accept, how overrides find their place, and that run.toml says everything."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import ConfigError
from mpqyolo.train import toml
from mpqyolo.train.checkpoint import make_model
from mpqyolo.train.recipe_file import load_recipe, names, run_recipe, save_recipe

PARTS = ("model", "data", "optimiser", "loss", "evaluate", "teacher")


def test_the_rate_suits_the_network_unless_it_is_given() -> None:
    for overrides, rate in (
        ((), 5e-3),
        (("model.family=yolov5",), 2e-3),
        (("model.family=paper",), 2e-3),
        (("start=some.pt",), 5e-4),
        (("start=some.pt", "optimiser.lr=0.25"), 0.25),
        (("batch=64",), 1e-2),
        (("batch=64", "optimiser.lr=0.25"), 0.25),
    ):
        assert load_recipe("pnq", overrides).rate == rate


@pytest.mark.parametrize("name", ("direct", "float", "pnq", "two-step", "w4a4"))
def test_carried_recipes_have_equal_budgets(name: str) -> None:
    assert load_recipe(name).epochs == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", ["unknown key 'epoch'", "do you mean 'epochs'", "image_size"]),
        ("[optimiser]\nlearning = 1", ["'optimiser.learning'", "weight_decay"]),
        ("[[stages]]\nname = 'a'\nshare = 1.0\nramps = 'none'", ["stages.0.ramps", "do you mean 'ramp'"]),
        ("[[stages]]\nname = 'a'\nshare = 1.0\nquantise = [{layer = 'x'}]", ["stages.0.quantise.0.layer", "layers"]),
        ("[[stages]]\nname = 'a'\nshare = 1.0\n[[stages]]\nname = 'a'", ["names must differ"]),
        ("[[stages]]\nname = 'epochs'\nshare = 1.0", ["'epochs' is a key of the recipe"]),
        ("[[stages]]\nname = 'a'\nepochs = 3.0", ["3 of 100 epochs"]),
        ("[[stages]]\nname = 'a'\nepochs = 3.0\nshare = 0.5", ["either share or epochs"]),
        ("stages = []", ["at least one"]),
        ("image_size = 100", ["image_size", "multiple of 32", "100"]),
        ("[augment]\nmosaics = 1.0", ["mosaics", "do you mean 'mosaic'"]),
        *((f"[{part}]\nnothing = 1", [f"unknown key '{part}.nothing'", "known here"]) for part in PARTS),
        ("epochs = = 3", ["not TOML", "line 1"]),
        ("[optimiser]\nkind = 'sgd'\nlr = 0.01", ["the defaults are AdamW's", "weight_decay=5e-4"]),
        ("base = 'nothing'", ["no recipe 'nothing'", "pnq"]),
        ("base = ['pnq']", ["mine.toml: base must be", "['pnq']"]),
        ("base = 3", ["mine.toml: base must be"]),
        ("[optimiser]\nlr = inf", ["optimiser.lr", "finite"]),
        ("seed = 18446744073709551616", ["seed", "less than"]),
        ("grow = [[0.1, 224], [0.2, 160]]", ["shares and sides must grow"]),
        ("grow = [[0.1, 640]]", ["grow: 640 px are more than image_size, 320 px"]),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as fault:
        load_recipe(file)
    message = str(fault.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_base_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("base = 'pnq'\nepochs = 7\n[optimiser]\nlr = 0.5\n")
    overrides = ("optimiser.lr=0.25", "bits.share=0.3", "model.options.act=relu", "model.size=s", "settle.distil=false")
    recipe = load_recipe(file, overrides, model={"family": "paper", "size": "n"})
    stages = {stage.name: stage for stage in recipe.stages}
    assert (recipe.epochs, recipe.optimiser.lr, recipe.optimiser.kind) == (7, 0.25, "adamw")
    assert (recipe.model.family, recipe.model.size, recipe.model.options) == ("paper", "s", {"act": "relu"})
    assert (stages["bits"].share, stages["settle"].distil, stages["float"].share) == (0.3, False, 0.25)


@pytest.mark.parametrize(
    "override", ["nonsense", "heads.share=1", "epochs.x=1", "optimiser.lrr=1", "float.shares=1", "epochs=many", "float.share=inf"]
)
def test_a_wrong_override_is_one_clear_line(override: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load_recipe("pnq", [override])
    assert "\n" not in str(fault.value) and override.partition("=")[0].split(".")[-1] in str(fault.value)


def test_stages_that_an_override_has_spoiled() -> None:
    for stages in ("3", "[3]"):
        with pytest.raises(ConfigError, match="stages must be a list of tables"):
            load_recipe("pnq", [f"stages={stages}", "float.lr=0.5"])


def test_a_base_lies_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text("base = 'pnq'\nepochs = 7")
    (tmp_path / "mine.toml").write_text("base = 'below.toml'\nseed = 3")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.epochs, recipe.seed) == (7, 3)


def test_lengths_that_add_up_but_for_rounding() -> None:
    stages = ", ".join(f"{{name = '{name}', epochs = {epochs}}}" for name, epochs in (("a", 0.7), ("b", 0.2), ("c", 0.1)))
    assert 0.7 + 0.2 + 0.1 != 1
    assert len(load_recipe("float", [f"stages=[{stages}]", "epochs=1"]).stages) == 3


def test_a_key_that_is_nearly_right_is_proposed() -> None:
    with pytest.raises(ConfigError, match="do you mean 'mosaic_off_epochs'"):
        load_recipe("pnq", ["mosaic_off_epoch=3"])


@pytest.mark.parametrize("name", names())
def test_run_toml_gives_the_recipe_back(tmp_path: Path, name: str) -> None:
    overrides = ("model.classes=['a \"b\"', 'ü']", "model.options={widths = [8, 8], act = 'x'}", "model.rules=[['neck.*', 8, 8]]")
    recipe = load_recipe(name, overrides, data={"path": "a b\\c"})
    save_recipe(tmp_path, recipe)
    assert run_recipe(tmp_path) == recipe


_scalars = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(st.characters(codec="utf-8"))
)
_values = st.recursive(
    _scalars, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.text("aZ0-_ .é", min_size=1), v, max_size=3))
)


@settings(deadline=None)
@given(st.dictionaries(st.text("aZ0-_ .é", min_size=1), _values, max_size=4))
def test_toml_round_trip(tree: dict) -> None:
    assert tomllib.loads(toml.dumps(tree)) == tree


def test_inputs_grow() -> None:
    recipe = load_recipe("float", ["grow=[[0.5, 160], [0.75, 224]]", "epochs=8", "image_size=320"])
    assert [recipe.side(epoch) for epoch in range(8)] == [160] * 4 + [224] * 2 + [320] * 2
    assert load_recipe("float", ["epochs=3"]).side(0) == 320
    short = load_recipe("float", ["grow=[[0.5, 160]]", "epochs=1"])
    assert short.side(0) == 320  # the last epoch is at full size, however few there are
    for wrong in ("[[0.5, 100]]", "[[1.5, 160]]", "[[0.5, 224], [0.4, 160]]"):
        with pytest.raises(ConfigError, match="grow"):
            load_recipe("float", [f"grow={wrong}"])


def test_mosaics_end_before_the_run_does() -> None:
    recipe = load_recipe("float", ("epochs=40",))
    assert [recipe.mosaics(epoch) for epoch in (0, 33, 34, 39)] == [True, True, False, False]
    recipe = load_recipe("float", ("epochs=40", "mosaic_off_epochs=0"))
    assert recipe.mosaics(39)


def test_a_rule_must_match_a_layer() -> None:
    part = load_recipe("direct", ["model.rules=[['backbone.stage64.*', 1, 32]]", "model.classes=['a']"]).model
    with pytest.raises(ConfigError, match=r"'backbone\.stage64\.\*' matches no layer .* begin with: .*backbone\.stage32"):
        make_model(part)
    for block in ("neck.top4", "backbone.stage8.0"):  # a block has no bits; the layers in it have
        part = load_recipe("direct", [f"model.rules=[['{block}', 8, 4]]", "model.classes=['a']"]).model
        with pytest.raises(ConfigError, match=rf"'{block}' matches no layer that has bits; '{block}\.\*' is what lies below"):
            make_model(part)


@pytest.mark.parametrize(
    "options",
    [
        "{widths = [16, 32, 64]}", "{widths = [16, 32, 64, 128, 256]}", "{widths = [16, 24, 64, 128]}", "{stem = 7}",
        "{stem = 0}", "{stem = '8'}", "{stem = -8}", "{neck = [8, 8]}", "{neck = [0, 8, 8]}", "{depths = [0, 1, 1, -1]}",
        "{depths = [0, 1.5, 1, 1]}", "{act = 'gelu'}", "{shortcut = 'foo'}", "{stem = true}", "{widths = 3}",
    ],
)  # fmt: skip
def test_options_that_make_no_network_are_refused(options: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.options"):
        make_model(load_recipe("direct", [f"model.options={options}", "model.classes=['a']"]).model)
