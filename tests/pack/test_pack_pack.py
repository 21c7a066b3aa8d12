"""From a run folder to a proven file, and what happens on the way when something is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from train_squares import make_squares, tiny_recipe

from mpqyolo.account.cost import cost
from mpqyolo.account.yolov5 import yolov5
from mpqyolo.core.bits import policy
from mpqyolo.core.errors import CheckpointError, DataError, FileFormatError, PackError
from mpqyolo.data.formats import load
from mpqyolo.data.sample import Dataset
from mpqyolo.detector.model import build_model
from mpqyolo.evaluate.verify import Verifier
from mpqyolo.format.card import check_card
from mpqyolo.format.reader import read_model
from mpqyolo.graph.ir import Graph
from mpqyolo.pack import pack as packing
from mpqyolo.pack.pack import check_packable, graph_of, pack
from mpqyolo.pack.passes import optimise
from mpqyolo.pack.photos import MOST, made_up, proof_photos
from mpqyolo.quantize.apply import apply_policy, handles
from mpqyolo.reference.decode import detect
from mpqyolo.runtime.detector import Detector
from mpqyolo.train.checkpoint import BEST, load_tensors, make_model, save_tensors
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.recipe import ModelPart
from mpqyolo.train.recipe_file import save_recipe

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize("bits", ["default", "paper", "w1a2", "w4a4"])
def test_a_run_becomes_a_proven_file(bits: str, trained: dict[str, Any], squares: Dataset, tmp_path: Path) -> None:
    out, seen = tmp_path / "squares.mpqy", []
    result = pack(trained[bits].folder, out, progress=lambda done, total: seen.append((done, total)))
    assert [path.name for path in tmp_path.iterdir()] == ["squares.mpqy"] and seen == [(i, 4) for i in (1, 2, 3, 4)]
    assert result.proof.photos == 4 and result.photos == "photos of the 'val' split"
    assert result.proof.tensors == len(result.model.graph.tensors) > 50

    # The file's size is the claim: every constant at its true width, and a header.
    assert result.size_bytes == out.stat().st_size and result.claim == cost(result.model.graph).size_bytes
    assert result.claim < result.size_bytes < result.claim + 12_000
    weights = sum(layer.weight_bytes for layer in cost(result.model.graph).layers)
    expected = sum(p.numel() * p_bits for p, p_bits in weights_and_bits(trained[bits].model)) / 8
    assert abs(weights - expected) < 100
    assert result.ratios["size_ratio"] == yolov5("n", 2, 64).size_bytes / result.size_bytes

    model = read_model(out)
    check_card(model.card)
    assert model.card["name"] == "squares" and model.card["metrics"] == {"val_map": 0.5, "val_map50": 0.75}
    assert model.card["data"] == "data" and str(squares.root.parent) not in json.dumps(model.card)
    assert model.classes == ("red", "blue") and model.policy["name"] == bits
    assert model.policy["bits"] == {region: list(pair) for region, pair in policy(bits).regions().items()}

    verifier, detector, found = Verifier(out), Detector(out, min_score=0.02), 0
    for index in range(len(squares)):
        photo = squares.read(index)
        assert verifier.difference(photo) is None
        ours, reference = detector.predict(photo), detect(model, photo, 0.02)
        assert np.array_equal(ours.xyxy, reference.xyxy) and np.array_equal(ours.score, reference.score)
        found += len(ours)
    assert found >= len(squares) / 2


def test_a_card_names_no_place_of_this_machine(trained: dict[str, Any], tmp_path: Path) -> None:
    """Folders and files that a recipe names become their last names."""
    here = Path("/some/where")
    given, recipe = trained["paper"], trained["paper"].recipe
    data = recipe.data.model_copy(update={"unlabelled": str(here / "street")})
    teacher = recipe.teacher.model_copy(update={"path": str(here / "big.onnx"), "model": str(here / "big.toml")})
    shutil.copytree(given.folder, tmp_path / "run")
    save_recipe(tmp_path / "run", recipe.model_copy(update={"data": data, "teacher": teacher, "start": str(here / "first")}))
    told = pack(tmp_path / "run", tmp_path / "m.mpqy").model.card["recipe"]
    assert told["data"]["unlabelled"] == "street" and told["start"] == "first"
    for path, name in (("runs/v7/checkpoints/best.safetensors", "v7"), ("d/set/annotations/instances_val2017.json", "set")):
        assert packing._last(path) == name
    assert told["teacher"]["path"] == "big.onnx" and told["teacher"]["model"] == "big.toml"
    assert str(here) not in json.dumps(told)


def weights_and_bits(model: torch.nn.Module) -> list[tuple[torch.Tensor, int]]:
    convs = (m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    return [(m.weight, m.weight_quantiser.bits) for m in convs]


def test_a_failed_proof_names_the_tensor_and_leaves_the_old_file(
    trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that gets one number wrong."""

    def wrong(graph: Graph) -> Graph:
        graph = optimise(graph)
        name = "neck.top4.mix.bias"
        values = graph.constants[name].values.copy()
        values += 40
        return replace(graph, constants={**graph.constants, name: replace(graph.constants[name], values=values)})

    monkeypatch.setattr(packing, "optimise", wrong)
    out = tmp_path / "m.mpqy"
    with pytest.raises(PackError, match=r"photo 1, between the folded network and the reference: neck\.top4\.mix: \d+ elements"):
        pack(trained["default"].folder, out)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"old")
    with pytest.raises(PackError, match="no file was written"):
        pack(trained["default"].folder, out)
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]


def test_an_engine_that_is_wrong_is_caught(trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpqyolo.runtime.session import Session

    right = Session.tensor

    def wrong(self: Session, name: str) -> np.ndarray:
        values = right(self, name).copy()
        if name == "backbone.stage16.0":
            values[-1, -1, -1] += 1
        return values

    monkeypatch.setattr(Session, "tensor", wrong)
    with pytest.raises(PackError, match=r"between the engine and the reference: backbone\.stage16\.0: 1 elements differ"):
        pack(trained["default"].folder, tmp_path / "m.mpqy")
    assert list(tmp_path.iterdir()) == []


def test_size_name_and_photos_can_be_chosen(trained: dict[str, Any], squares: Dataset, tmp_path: Path) -> None:
    photos = [squares.read(0), np.zeros((50, 70, 3), np.uint8), np.full((7, 300, 3), 255, np.uint8)]
    result = pack(trained["paper"].folder / BEST, tmp_path / "m.mpqy", photos, (64, 96), "wide")
    assert result.model.graph.tensors["image"].shape == (3, 64, 96) and result.model.card["image_size"] == [64, 96]
    assert result.model.card["name"] == "wide" and result.photos == "given photos" and result.proof.photos == 3
    with pytest.raises(PackError, match="image size 64x100: both must be multiples of 32"):
        pack(trained["paper"].folder, tmp_path / "n.mpqy", image_size=(64, 100))
    with pytest.raises(PackError, match="there is no folder"):
        pack(trained["paper"].folder, tmp_path / "nowhere" / "n.mpqy")
    for folder in (tmp_path, Path("/")):
        with pytest.raises(PackError, match="is a folder; name the file"):
            pack(trained["paper"].folder, folder)
    with pytest.raises(FileFormatError, match="cannot be written"):
        pack(trained["paper"].folder, tmp_path / ("n" * 250))
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        pack(tmp_path, tmp_path / "n.mpqy")


def test_a_channel_that_had_to_be_held_down_is_told(trained: dict[str, Any], tmp_path: Path) -> None:
    """Its batch norm makes it ever louder than its neighbours, until one shift no longer serves both."""
    shutil.copytree(trained["w4a4"].folder, tmp_path / "run")
    tensors, record = load_tensors(tmp_path / "run" / BEST)
    assert pack(tmp_path / "run", tmp_path / "m.mpqy").notes == ()
    for _ in range(12):
        tensors["backbone.stage16.0.bn.weight"][1] *= 1.5
        save_tensors(tmp_path / "run" / BEST, tensors, record)
        if notes := pack(tmp_path / "run", tmp_path / "m.mpqy").notes:
            break
    assert len(notes) == 1 and notes[0].startswith("layer 'backbone.stage16.0': channels are held down"), notes


def test_what_no_training_can_pack_is_refused_before_it() -> None:
    check_packable(ModelPart(policy="mixed"), 320)
    check_packable(ModelPart(policy="float", family="yolov5"), 320)
    narrow = ModelPart(policy="mixed", options={"stem": 6, "widths": [6, 12, 24, 48]})
    with pytest.raises(PackError, match="4"):
        check_packable(narrow, 64)


def test_where_photos_come_from(trained: dict[str, Any], squares: Dataset, tmp_path: Path) -> None:
    recipe = trained["default"].recipe
    assert [len(proof_photos(given, recipe)[0]) for given in (None, squares.root, [squares.read(0)] * 100)] == [4, 16, MOST]
    Image.fromarray(squares.read(3)).save(tmp_path / "one.png")
    photos, words = proof_photos(tmp_path, recipe)
    assert np.array_equal(photos[0], squares.read(3)) and words == f"photos of {tmp_path.name}"
    damaged = make_squares(tmp_path / "damaged", count=8)
    first = load(damaged, recipe.data.val).items[0].path
    photo = first.with_suffix(".jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(photo)
    photo.write_bytes(photo.read_bytes()[:-1000])  # its header still says how large it is
    first.unlink()
    spoiled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(damaged)})})
    photos, words = proof_photos(None, spoiled)
    assert len(photos) == 3 and words == "photos of the 'val' split"
    gone = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(tmp_path / "gone")})})
    photos, words = proof_photos(None, gone)
    assert len(photos) == 4 and "made-up photos" in words
    assert all(np.array_equal(a, b) for a, b in zip(photos, made_up(4), strict=True))
    with pytest.raises(DataError, match="no photos are given"):
        proof_photos([], recipe)
    with pytest.raises(DataError):
        proof_photos(tmp_path / "nothing", recipe)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, t: torch.full_like(t, 0.7) if name.endswith("strength") else t, "quantised to 70% only"),
        (lambda name, t: torch.full_like(t, 8) if name.endswith("mix.conv.weight_quantiser.bits_buffer") else t,
         "layer 'neck.top4.mix.conv': its weights have 8 bits, policy 'default' says 4"),
    ],
)  # fmt: skip
def test_an_unfinished_run_is_refused(change: Any, words: str, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    save_recipe(folder, trained["default"].recipe)
    tensors, record = load_tensors(trained["default"].folder / BEST)
    save_tensors(folder / BEST, {name: change(name, t) for name, t in tensors.items()}, record)
    with pytest.raises(PackError, match=words):
        pack(folder, tmp_path / "m.mpqy")
    assert not (tmp_path / "m.mpqy").exists()


@pytest.mark.parametrize("bits", ["default", "mixed", "paper", "w1a2", "w1a4", "deep", "w4a4"])
def test_graph_of_a_network_with_random_weights(bits: str) -> None:
    network = build_model("mpq", "n", tuple("abc"))
    apply_policy(network, policy(bits))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = graph_of(network, (64, 96))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert model.policy["bits"] == {region: list(pair) for region, pair in policy(bits).regions().items()}
    counted = cost(model.graph)
    weights = sum(m.weight.numel() * (32 if m.weight_quantiser is None else m.weight_quantiser.bits) for m in convs(network)) / 8
    assert abs(sum(layer.weight_bytes for layer in counted.layers) - weights) < 100
    assert counted.macs[32] == 0 and (counted.macs[1] > counted.macs[4]) == (bits in ("default", "mixed", "paper", "w1a2"))


def test_a_network_with_random_weights_costs_what_a_trained_one_does(trained: dict[str, Any]) -> None:
    """Though all its bits are alike: the streams are never negative, and the thresholds are 0."""
    for bits in ("default", "paper", "w4a4"):
        part = trained[bits].recipe.model
        a, b = (cost(graph_of(model, 64).graph) for model in (trained[bits].model, make_model(part)))
        assert (a.parameters, a.size_bytes, a.macs) == (b.parameters, b.size_bytes, b.macs)
        # A shift by 0 is no work: which layers have one is up to the numbers.
        assert {**a.elementwise, "shift": 0} == {**b.elementwise, "shift": 0}
    network = build_model("paper", "n", ("a",), shortcut="plain", act="relu", stem="3x3")
    apply_policy(network, policy("paper"))
    assert cost(graph_of(network, 64).graph).macs[1] > 0


@pytest.mark.parametrize("bits", ["paper", "default", "w1a2", "w4a4"])
def test_the_paper_family_is_proven(bits: str, squares: Dataset, tmp_path: Path) -> None:
    """Its bottlenecks meet in concats, whose thresholds passes split: the parts have names that no layer has."""
    recipe = tiny_recipe(squares.root, "direct", f"model.policy={bits}", "model.family=paper", "model.options={}")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"classes": squares.classes})})
    torch.manual_seed(0)
    network = make_model(recipe.model)
    for handle in handles(network):
        handle.quantiser.set_strength(1)
    images = torch.from_numpy(np.stack([squares.read(i) for i in range(8)])).permute(0, 3, 1, 2).contiguous()
    reestimate_bn(network, [images] * 2)
    save_recipe(tmp_path, recipe)
    save_tensors(tmp_path / BEST, network.state_dict(), {"epoch": 1, "map": 0.0, "map50": 0.0})
    result = pack(tmp_path, tmp_path / "x.mpqy")
    parts = [name for name in result.model.graph.tensors if name.rpartition(".")[2].isdigit() and "threshold" in name]
    assert result.proof.photos > 0 and bool(parts) == (bits in ("default", "paper"))


def convs(network: torch.nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]


def test_graph_of_a_float_network_is_refused() -> None:
    with pytest.raises(PackError, match="its weights are float"):
        graph_of(build_model("mpq", "n", ("a",)), 64)
