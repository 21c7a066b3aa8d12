"""Starting from a published YOLOv5: body by place, class rows by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.quantize.apply import handles
from mpqyolo.train.checkpoint import BEST, load_tensors, make_model, save_tensors
from mpqyolo.train.ema import batch_norms, reestimate_bn
from mpqyolo.train.parallel import Ranks
from mpqyolo.train.recipe_file import load_recipe, save_recipe
from mpqyolo.train.run import Run
from mpqyolo.train.start import fit_start, load_start


def test_published_weights_fill_the_body_and_the_classes_that_are_known(published: tuple[Path, YOLOv5]) -> None:
    path, theirs = published
    overrides = (f"start={path}", "model.family=yolov5", "model.classes=['blue', 'red']")
    recipe = load_recipe("float", overrides)
    model = make_model(recipe.model)
    fresh = model.predict.logit[0].weight[0].clone()
    text = "\n".join(load_start(model, recipe).notes)
    assert torch.equal(model.backbone.c4.cv3.conv.weight, theirs.backbone.c4.cv3.conv.weight)
    rows = theirs.predict.m[0].weight.unflatten(0, (3, 8))
    assert torch.allclose(model.predict.logit[0].weight[1], (rows[:, 5 + 1] + rows[:, 4]).mean(0))
    assert torch.equal(model.predict.logit[0].weight[0], fresh)
    assert "predict.distance.0.weight" in text and "missing in it: 6" in text


def test_another_size_does_not_fit(published: tuple[Path, YOLOv5]) -> None:
    recipe = load_recipe("float", (f"start={published[0]}", "model.family=mpq", "model.classes=['blue']"))
    with pytest.raises(CheckpointError, match="another family or size"):
        load_start(make_model(recipe.model), recipe)


def test_a_head_that_is_none_is_left_out(tmp_path: Path) -> None:
    recipe = load_recipe("float", ("model.family=yolov5", "model.classes=['blue']"))
    model = make_model(recipe.model)
    body = {f"model.0.{key.removeprefix('stem.')}": value for key, value in model.state_dict().items() if key.startswith("stem.")}
    deep = {f"model.1.{key}": value for key, value in model.backbone.down2.state_dict().items()}
    torch.save(body | deep | {"model.24.m.0.bias": torch.tensor(1.0)}, tmp_path / "a.pt")
    started = load_start(model, recipe.model_copy(update={"start": str(tmp_path / "a.pt")}))
    assert started.notes[0].endswith(f"{len(body | deep)} of {len(model.state_dict())} tensors taken")


def test_maps_keep_what_silu_gives_below_zero(published: tuple[Path, YOLOv5]) -> None:
    """What a quantiser's ReLU would cut off: its shift begins where a channel's values begin, layer by layer."""
    recipe = load_recipe("tuned", (f"start={published[0]}", "model.family=paper", "model.policy=w1a4", "model.classes=['red']"))
    model = make_model(recipe.model)
    started = load_start(model, recipe)
    assert "backbone.c3.cv1.conv.input_quantiser.shift" in started.fresh and "neck.code3.shift" in started.fresh
    torch.manual_seed(0)
    batches = [torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    fit_start(model, started.fresh, batches)
    below = {}

    def watch(name: str) -> None:
        quantiser = model.get_submodule(name)
        quantiser.register_forward_pre_hook(lambda m, x: below.update({name: float((x[0] < m.shift).float().mean())}))

    names = [name.removesuffix(".shift") for name in started.fresh]
    for name in names:
        watch(name)
    with torch.no_grad():
        model(torch.cat(batches))
    assert len(names) > 30 and max(below.values()) < 0.2 and sum(below.values()) / len(names) < 0.03
    assert any(float(model.get_submodule(name).shift.detach().min()) < -0.05 for name in names)


def test_a_trained_yolov5_run_gives_its_silu_to_the_paper_family(tmp_path: Path) -> None:
    recipe = load_recipe("float", ("model.family=yolov5", "model.classes=['red']"))
    save_recipe(tmp_path, recipe)
    (tmp_path / "checkpoints").mkdir()
    theirs = make_model(recipe.model)
    save_tensors(tmp_path / BEST, theirs.state_dict(), {})
    recipe = load_recipe("tuned", (f"start={tmp_path}", "model.family=paper", "model.classes=['red']"))
    model = make_model(recipe.model)
    load_start(model, recipe)
    assert torch.equal(model.backbone.c4.cv3.conv.weight, theirs.backbone.c4.cv3.conv.weight)
    assert torch.equal(model.predict.distance[0].weight, theirs.predict.distance[0].weight)
    x = torch.linspace(-2, 2, 41).expand(1, 64, 1, 41)
    assert (model.backbone.c3.cv3.act(x) - torch.nn.functional.silu(x)).abs().max() < 0.2


def trained(path: Path, policy: str, ste: str = "lsq") -> None:
    """A run folder with a quantised network."""
    recipe = load_recipe("direct", (f"model.policy={policy}", f"model.switches={{ste = '{ste}'}}", "model.classes=['a']"))
    save_recipe(path, recipe)
    model = make_model(recipe.model)
    for handle in handles(model):
        handle.quantiser.set_strength(1)
    model(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    save_tensors(path / BEST, model.state_dict(), {})


def test_one_class_for_another_leaves_the_scales_of_its_weights(tmp_path: Path) -> None:
    """A scale for all is one row, too, but no class's."""
    (tmp_path / "checkpoints").mkdir()
    trained(tmp_path, "default")
    theirs = load_tensors(tmp_path / BEST)[0]
    recipe = load_recipe("direct", (f"start={tmp_path}", "model.classes=['b']"))
    model = make_model(recipe.model)
    fresh = model.predict.logit[0].weight.clone()
    load_start(model, recipe)
    name = "predict.logit.0.weight_quantiser.log_ratio"
    assert torch.equal(model.get_parameter(name), theirs[name]) and float(theirs[name]) != 0
    assert torch.equal(model.predict.logit[0].weight, fresh)


def test_statistics_that_stay_frozen_are_those_of_the_quantised_network(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    trained(tmp_path, "default")
    recipe = load_recipe(
        "direct", (f"start={tmp_path}", "quantised.freeze_bn=true", "image_size=64"), data={"path": str(squares)}
    )
    run = Run(recipe, tmp_path / "run", Ranks())
    run.fit_start()
    assert not any(float(handle.quantiser.strength) for handle in handles(run.ema.model))  # it may have to teach
    found = [layer.running_var.clone() for layer in batch_norms(run.model)]
    run.configure()
    reestimate_bn(run.model, run.clean_batches())
    assert all(torch.equal(a, b.running_var) for a, b in zip(found, batch_norms(run.model), strict=True))


def test_quantisers_keep_the_bits_of_their_own_policy(tmp_path: Path) -> None:
    for name, policy, ste in (("two", "w1a2", "lsq"), ("sign", "default", "polynomial")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        trained(tmp_path / name, policy, ste)
    for source, policy in (("two", "default"), ("two", "w4a4"), ("two", "w1a2"), ("sign", "default")):
        recipe = load_recipe("direct", (f"start={tmp_path / source}", f"model.policy={policy}", "model.classes=['a']"))
        model = make_model(recipe.model)
        before = {handle.name + handle.part: handle.bits for handle in handles(model)}
        load_start(model, recipe)
        assert before == {handle.name + handle.part: handle.bits for handle in handles(model)}
        assert not any(float(handle.quantiser.strength) for handle in handles(model))
        maps = [h.quantiser for h in handles(model) if h.part == "activation" and h.name.startswith("backbone")]
        assert {bool(q.initialised) for q in maps} == {source == "two" and policy == "w1a2"}
