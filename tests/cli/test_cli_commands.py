"""Every command, run for real; the keys of its JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_call import call, refused
from train_squares import TINY

from mpqyolo.core.bits import POLICIES
from mpqyolo.train.recipe_file import names

COMMANDS = ("check", "train", "val", "pack", "predict", "info", "bench", "models")


def test_help_and_version():
    assert call("--version").out.strip() == "0.1.0"
    everything = call("--help").out
    for command in COMMANDS:
        assert command in everything
        page = call(command, "--help")
        assert page.code == 0 and "--json" in page.out


def test_help_lists_what_there_is():
    page = " ".join(call("train", "--help").out.replace("│", " ").split())
    for name in (*names(), *POLICIES):
        assert f" {name}," in page or f" {name};" in page or f" {name}." in page or f" {name} (" in page, name


def test_info_shows_all_bits_of_a_region():
    for policy, bits in (("mixed", "backbone 1/2 and 1/1,"), ("deep", "backbone 4/4 and 1/4,"), ("w1a2", "backbone 1/2,")):
        assert bits in call("info", "n", "--policy", policy).out


def test_check(squares: Path, tmp_path: Path):
    document = call("check", squares, "--json").json
    # Train and val are the same photos here, which is a warning each.
    assert document["ok"] and document["images"] == 16 and document["per_class"] == {"red": 8, "blue": 8}
    assert len(document["problems"]) == 8 and "a leak from 'train' into 'val'" in document["problems"][0]["message"]
    assert "boxes by class: red 8, blue 8" in call("check", squares).out
    bad = shutil.copytree(squares, tmp_path / "bad")
    (bad / "labels" / "3.txt").write_text("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n")
    result = call("check", bad)
    assert result.code == 1 and f"error: {bad}/labels/3.txt:2: unknown class 7" in result.out
    problems = call("check", bad, "--json").json["problems"]
    assert {"severity", "file", "line", "message"} == set(problems[0])


def test_run_folder(run: Path):
    for name in ("run.toml", "results.csv", "results.png", "train_batch.png", "val_predictions.png"):
        assert (run / name).stat().st_size
    assert (run / "checkpoints" / "best.safetensors").is_file()


def test_train_resumes_and_protects(run: Path, squares: Path):
    assert "holds a run already" in refused("train", "--data", squares, "--out", run)
    assert call("train", "--out", run, "--resume").code == 0


def test_train_by_run_toml_and_options(squares: Path, run: Path, tmp_path: Path):
    words = ("--recipe", run / "run.toml", "--epochs", 1, "--policy", "float", "--seed", 3, "--classes", "blue")
    stages = 'stages=[{name = "float", share = 1.0}]'
    result = call("train", *words, "--out", tmp_path / "b", "--set", stages, "--set", "optimiser.lr=1e-4")
    assert result.code == 0, result.err
    text = (tmp_path / "b" / "run.toml").read_text()
    for line in ("epochs = 1", 'policy = "float"', "seed = 3", 'classes = ["blue"]', "lr = 0.0001", f'path = "{squares}"'):
        assert line in text


def test_train_starts_from_a_run(squares: Path, run: Path, tmp_path: Path):
    words = ("--data", squares, "--model", "n", "--policy", "float", "--set", TINY, "data.workers=0")
    short = ("--epochs", 1, "--batch", 8, "--image-size", 64)
    result = call("train", *words, *short, "--from", run, "--out", tmp_path / "c")
    assert result.code == 0 and "tensors taken" in result.err, result.err


def test_val_of_checkpoint_and_file(run: Path, packed: Path, squares: Path):
    words = ("--data", squares, "--split", "val", "--json")
    documents = [call("val", *model, *words).json for model in ((run, "--as-trained"), (run,), (packed,))]
    for document in documents:
        assert {"images", "classes", "map", "map50", "voc_ap50", "per_class"} <= set(document)
        assert document["images"] == 8 and document["classes"] == 2 and set(document["per_class"]) == {"red", "blue"}
        assert all(0 <= document[key] <= 1 for key in ("map", "map50", "voc_ap50"))
    backends = [document["backend"] for document in documents]
    assert backends[:2] == ["torch", "torch (the file's integers)"] and backends[2].startswith("engine")
    for key in ("map", "map50", "voc_ap50"):
        assert documents[1][key] == pytest.approx(documents[2][key], abs=0.002)
    table = call("val", packed, "--data", squares)
    assert table.code == 0 and table.out.splitlines()[-1].startswith("mean")


def test_val_says_which_classes_a_model_lacks(packed: Path, squares: Path, tmp_path: Path):
    other = shutil.copytree(squares, tmp_path / "other")
    (other / "data.yaml").write_text("train: images\nval: images\nnames: [red, green]\n")
    result = call("val", packed, "--data", other, "--json")
    assert result.code == 0 and "scores 0 on: green" in result.err
    half = call("val", packed, "--data", other, "--only", "red", "--json")
    assert half.code == 0 and list(half.json["per_class"]) == ["red"] and "scores 0" not in half.err
    assert half.json["per_class"]["red"] == pytest.approx(result.json["per_class"]["red"])
    (other / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    assert "none of the data's classes" in refused("val", packed, "--data", other)


def test_pack(run: Path, squares: Path, tmp_path: Path):
    document = call("pack", run, "--out", tmp_path / "x.mpqy", "--name", "squares", "--image-size", "64x96", "--json").json
    assert document["size_bytes"] == (tmp_path / "x.mpqy").stat().st_size
    assert document["proof"]["photos"] > 0 and document["size_ratio"] > 10
    about = call("info", tmp_path / "x.mpqy", "--json").json
    assert about["image_size"] == [64, 96] and about["card"]["name"] == "squares"
    assert "no folder" in refused("pack", run, "--out", tmp_path / "nowhere" / "x.mpqy")


def test_predict(packed: Path, run: Path, squares: Path, tmp_path: Path):
    words = (squares / "images", "--min-score", 0.01, "--out", tmp_path / "out")
    result = call("predict", packed, *words, "--json", "--verify")
    assert result.code == 0, result.err
    documents = [json.loads(line) for line in result.out.splitlines()]
    assert len(documents) == 8 and len(list((tmp_path / "out").glob("*.png"))) == 8
    for document in documents:
        assert set(document) == {"source", "width", "height", "latency_ms", "detections", "first_difference"}
        assert document["width"] == document["height"] == 64 and document["first_difference"] is None
    boxes = [box for document in documents for box in document["detections"]]
    assert boxes and all(set(box) == {"class_id", "class_name", "score", "xyxy"} and len(box["xyxy"]) == 4 for box in boxes)
    assert call("predict", run, squares / "images" / "0.png").code == 0
    assert "needs a packed model" in refused("predict", run, squares / "images", "--verify")


def test_predict_takes_patterns_and_keeps_equal_names_apart(packed: Path, squares: Path, tmp_path: Path):
    twin = tmp_path / "twin"
    shutil.copytree(squares / "images", twin)
    result = call("predict", packed, f"{squares}/images/[01].png", twin / "0.png", "--out", tmp_path / "out")
    assert result.code == 0 and len(result.out.splitlines()) == 3
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["0-2.png", "0.png", "1.png"]


def test_predict_never_writes_over_its_sources(packed: Path, squares: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    shutil.copytree(squares / "images", photos)
    before = {file.name: file.read_bytes() for file in photos.iterdir()}
    for source in (photos, photos / "0.png", f"{photos}/*.png"):
        assert "pictures would replace the originals" in refused("predict", packed, source, "--out", photos)
    for _ in range(2):  # pictures of the first time are no sources of the second
        result = call("predict", packed, photos, "--out", photos / "found")
        assert result.code == 0 and len(result.out.splitlines()) == 8
    assert before == {file.name: file.read_bytes() for file in photos.iterdir() if file.is_file()}
    assert len(list((photos / "found").iterdir())) == 8


def test_verify_names_the_first_tensor(packed: Path, squares: Path, monkeypatch: pytest.MonkeyPatch):
    from mpqyolo.runtime.session import Session

    honest = Session.tensor
    monkeypatch.setattr(Session, "tensor", lambda self, name: honest(self, name) ^ (1 if name.startswith("backbone") else 0))
    result = call("predict", packed, squares / "images" / "0.png", "--verify")
    assert result.code == 1 and "engine and reference differ, first in backbone" in result.err


@pytest.mark.parametrize(("model", "least_size", "least_ops"), [("n", 12, 12), ("s", 12, 12)])
def test_info_of_names(model: str, least_size: float, least_ops: float):
    document = call("info", model, "--json").json
    keys = {"parameters", "size_bytes", "macs", "elementwise_ops", "ops", "ops_ratio", "size_ratio", "layers"}
    assert keys <= set(document) and set(document["macs"]) == {"1", "4", "8", "32"}
    layer_keys = {"name", "op", "weight_bits", "activation_bits", "macs", "weight_bytes", "output_shape"}
    assert all(layer_keys <= set(layer) for layer in document["layers"])
    assert document["size_ratio"] > least_size and document["ops_ratio"] > least_ops
    macs = document["macs"]
    assert document["ops"] == macs["32"] + macs["8"] / 4 + macs["4"] / 8 + macs["1"] / 64
    assert document == call("info", model, "--json").json  # random weights, but always the same


def test_info_of_the_reference_and_of_files(packed: Path, run: Path):
    document = call("info", "yolov5s", "--classes", 20, "--image-size", 320, "--json").json
    assert document["ops_ratio"] == document["size_ratio"] == 1 and document["macs"]["32"] == document["ops"]
    assert call("info", "yolov5n", "--json").json["parameters"] == 1_867_405
    text = call("info", packed).out
    assert f"{packed.stat().st_size:,} bytes" in text and "OPs = MACs_32 + MACs_8/4 + MACs_4/8 + MACs_1/64" in text
    file, trained = (call("info", model, "--json").json for model in (packed, run))
    assert file["macs"] == trained["macs"] and file["layers"] == trained["layers"]
    assert call("info", packed, "--image-size", "96x64", "--json").json["image_size"] == [96, 64]


def test_bench(packed: Path):
    document = call("bench", packed, "--seconds", 0.2, "--json").json
    assert {"median_ms", "min_ms", "p95_ms", "isa", "threads", "cpu", "arena_bytes", "layers"} <= set(document)
    assert 0 < document["min_ms"] <= document["median_ms"] <= document["p95_ms"] and document["arena_bytes"] > 0
    assert all({"name", "median_ms"} <= set(layer) for layer in document["layers"])
    assert call("bench", packed, "--seconds", 0.1, "--isa", "serial", "--json").json["isa"] == "serial"
    assert "median" in call("bench", "n", "--image-size", 64, "--classes", 3, "--seconds", 0.1, "--threads", 2).out
    assert "float network" in refused("bench", "yolov5n")


def test_models():
    document = call("models", "--json").json
    assert set(document) == {"carried", "random"} and "paper-s" in document["random"]
    keys = {"name", "path", "bytes", "sha256", "classes", "image_size", "policy", "median_ms", "card"}
    assert all(keys == set(row) and row["median_ms"] > 0 for row in document["carried"])
    shown = call("models").out
    assert "yolov5m" in shown
    for row in document["carried"]:
        assert row["name"] in shown and row["sha256"] in shown and f"{row['bytes']:,} bytes" in shown
        assert f"test {100 * row['card']['metrics']['packed_test_map50']:.1f}" in shown and "CC BY 4.0" in shown
