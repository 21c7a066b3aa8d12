"""The recipes for PASCAL VOC 07+12 and COCO 2017, on small sets that lie as those do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from train_squares import TINY, make_squares

from mpqyolo.data.convert import write_coco, write_voc
from mpqyolo.data.formats import load
from mpqyolo.train import loop
from mpqyolo.train.log import Reporter
from mpqyolo.train.recipe_file import load_recipe


def as_voc(squares: Path, out: Path) -> Path:
    """VOCdevkit: two years, of which the second has no test split."""
    sets = {split: replace(load(squares, "train"), split=split) for split in ("train", "val", "test")}
    write_voc([replace(sets[s], items=sets[s].items[k::3]) for k, s in enumerate(sets)], out / "VOC2007")
    renamed = out / "more"
    shutil.copytree(squares, renamed)
    for photo in sorted((renamed / "images").iterdir()):
        photo.rename(photo.with_stem(f"2012_{photo.stem}"))
        label = renamed / "labels" / f"{photo.stem}.txt"
        label.rename(label.with_stem(f"2012_{photo.stem}"))
    more = load(renamed, "train")
    write_voc([replace(more, split=s, items=more.items[k::2]) for k, s in enumerate(("train", "val"))], out / "VOC2012")
    shutil.rmtree(renamed)
    return out


def as_coco(squares: Path, out: Path) -> Path:
    """annotations/instances_train2017.json beside train2017."""
    write_coco([replace(load(squares, "train"), split=split) for split in ("train2017", "val2017")], out)
    return out


@pytest.mark.parametrize("recipe, lay, photos", [("voc", as_voc, 3 + 4), ("coco", as_coco, 8)])
def test_the_whole_way_in_their_layout(recipe: str, lay, photos: int, tmp_path: Path) -> None:
    data = lay(make_squares(tmp_path / "squares"), tmp_path / "data")
    assert len(load(data, "train")) == photos
    small = ("epochs=12", "batch=4", "image_size=64", "grow=[[0.5, 32]]", "mosaic_off_epochs=1")
    here = ("data.workers=0", "data.cache_mb=64", "evaluate.bn_batches=2")
    settings = load_recipe(recipe, (TINY, *small, *here), data={"path": str(data)})
    result = loop.train(settings, tmp_path / "run", progress=Reporter())
    assert result.finished == "all epochs done" and result.checkpoint.is_file()
    if recipe == "voc":
        assert len(load(data, "test")) == 2
