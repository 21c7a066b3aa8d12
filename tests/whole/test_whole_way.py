"""The main job, end to end and for real: sixteen photos, all PNQ stages, a packed and proved file, boxes by the engine."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from mpqyolo import Detector
from mpqyolo.cli.app import main
from mpqyolo.cli.resolve import open_predictor
from mpqyolo.data.formats import load
from mpqyolo.evaluate import evaluate
from mpqyolo.train.checkpoint import load_checkpoint
from mpqyolo.train.recipe_file import load_recipe

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "assets" / "photos"
RECIPE = ROOT / "tools" / "demo.toml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    words = [
        "train",
        "--data",
        str(PHOTOS),
        "--model",
        "n",
        "--recipe",
        str(RECIPE),
        "--out",
        str(out),
        "--set",
        "data.val=train",
    ]
    assert main(words) == 0
    return out


def test_the_recipe_goes_through_all_stages_of_pnq() -> None:
    assert [s.name for s in load_recipe(RECIPE).stages] == [s.name for s in load_recipe("pnq").stages]


@pytest.mark.timeout(1800)
def test_train_pack_and_detect(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, file = load(PHOTOS, "train"), tmp_path / "tiny.mpqy"
    assert len(dataset) == 16
    assert main(["pack", str(run), "--out", str(file)]) == 0
    size = load_checkpoint(run)[1].image_size
    trained = evaluate(open_predictor(str(run), None, 0.001, 1), dataset)
    packed = evaluate(open_predictor(str(file), None, 0.001, 1), dataset)
    assert trained.map50 >= 0.9
    assert packed.map == pytest.approx(trained.map, abs=0.002) and packed.map50 == pytest.approx(trained.map50, abs=0.002)
    # 4 bytes a weight before; 1 bit or 4 bits after.
    assert file.stat().st_size < 4 * sum(p.numel() for p in load_checkpoint(run)[0].parameters()) / 18

    capsys.readouterr()
    photo = dataset.items[0].path
    assert main(["predict", str(file), str(photo), "--out", str(tmp_path / "pictures"), "--json", "--verify"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[0])
    found = Detector(file).predict(photo)
    assert found.size == (said["width"], said["height"]) and len(found) == len(said["detections"]) > 0
    assert np.allclose([d["xyxy"] for d in said["detections"]], found.xyxy)
    assert size % 32 == 0 and any((tmp_path / "pictures").iterdir())

    capsys.readouterr()
    runpy.run_path(str(ROOT / "tools" / "demo.py"))["compare"](run, file)  # what `make demo-train` ends with
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [row[0] for row in rows[-3:]] == ["float", "quantised", "packed"] and float(rows[-1][2]) >= 0.9
