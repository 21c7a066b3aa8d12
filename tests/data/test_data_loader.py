"""Training batches: orders that depend on seed and epoch alone, and unlabelled photos mixed in without disturbing them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpqyolo.core.errors import ConfigError, DataError
from mpqyolo.data.augment import Augment
from mpqyolo.data.loader import Batch, Loader
from mpqyolo.data.unlabelled import load_unlabelled


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five photos without labels in a folder tree, and a file that is none."""
    rng = np.random.default_rng(3)
    for name in ("a.png", "deep/b.jpg", "deep/er/c.png", "deep/d.JPG", "e.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    (tmp_path / "tree" / "notes.txt").write_text("no photo")
    return tmp_path / "tree"


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and (a.photos, a.labelled) == (b.photos, b.labelled)
    )


def test_crowds_are_never_learned_and_difficult_boxes_on_demand(make) -> None:
    dataset = make(count=12, flags=True)
    learned = {}
    for difficult in (False, True):
        (batch,) = Loader(dataset, 64, 12, Augment.none(), difficult=difficult).epoch(0)
        place, label = batch.targets[:, :2].int().T.tolist()
        learned[difficult] = sorted((batch.photos[p], one) for p, one in zip(place, label, strict=True))
    boxes = [(n, *box) for n, i in enumerate(dataset.items) for box in zip(i.label, i.crowd, i.difficult, strict=True)]
    assert learned[True] == sorted((n, label) for n, label, crowd, _ in boxes if not crowd)
    assert learned[False] == sorted((n, label) for n, label, crowd, hard in boxes if not crowd and not hard)
    assert len(learned[False]) < len(learned[True]) < len(boxes)


def test_a_photo_of_another_size_than_its_labels_say_is_refused(make) -> None:
    dataset = make(count=1)
    item = dataset.items[0]
    for wrong in ({"width": item.width + 1}, {"height": item.height - 1}):
        with pytest.raises(
            DataError, match=f"the photo is {item.width}x{item.height}, its labels say .* boxes would be misplaced"
        ):
            replace(dataset, items=(replace(item, **wrong),)).read(0)


def test_a_folder_tree_is_a_data_set_without_boxes(tree: Path) -> None:
    found = load_unlabelled(tree, ("cat",))
    assert [item.path.name for item in found.items] == ["a.png", "b.jpg", "d.JPG", "c.png", "e.png"]
    assert found.classes == ("cat",) and all(len(item) == 0 for item in found.items)
    assert found.read(1).shape == (40, 50, 3)
    (tree / "f.png").write_text("no photo")
    with pytest.raises(DataError, match=r"f\.png: cannot be read as a photo"):
        load_unlabelled(tree)
    (tree.parent / "empty").mkdir()
    with pytest.raises(DataError, match="no photos in this folder"):
        load_unlabelled(tree.parent / "empty")
    with pytest.raises(DataError, match="no such folder"):
        load_unlabelled(tree.parent / "nowhere")


def test_labelled_photos_come_first_and_as_without_the_others(make, tree: Path) -> None:
    dataset, extra = make(count=9), load_unlabelled(tree)
    alone, mixed = Loader(dataset, 64, 3, seed=4), Loader(dataset, 64, 5, seed=4, unlabelled=extra, share=0.4)
    assert len(alone) == len(mixed) == 3
    for one, both in zip(alone.epoch(2), mixed.epoch(2), strict=True):
        assert both.images.shape == (5, 3, 64, 64) and (one.labelled, both.labelled) == (3, 3)
        assert torch.equal(one.images, both.images[:3]) and torch.equal(one.targets, both.targets)
        assert one.photos == both.photos[:3] and float(both.targets[:, 0].max()) < 3


def test_all_unlabelled_photos_are_seen_equally_often(make, tree: Path) -> None:
    loader = Loader(make(count=6), 64, 4, seed=1, unlabelled=load_unlabelled(tree), share=0.5)
    seen = [photo for epoch in range(5) for batch in loader.epoch(epoch) for photo in batch.photos[batch.labelled :]]
    assert len(seen) == 30 and set(Counter(seen).values()) == {6}
    assert [sorted(seen[at : at + 5]) for at in range(0, 30, 5)] == [[0, 1, 2, 3, 4]] * 6
    assert seen[:5] != seen[5:10] or seen[:5] != seen[10:15]


def test_batches_do_not_depend_on_workers_start_or_cache(make, tree: Path) -> None:
    dataset, extra = make(count=8), load_unlabelled(tree)
    wanted = list(Loader(dataset, 64, 4, seed=2, unlabelled=extra).epoch(3))
    later = list(Loader(dataset, 64, 4, seed=2, workers=2, cache_bytes=9000, unlabelled=extra).epoch(3, start=1))
    assert len(wanted) == 4 and all(same(a, b) for a, b in zip(wanted[1:], later, strict=True))
    assert not same(wanted[0], next(iter(Loader(dataset, 64, 4, seed=3, unlabelled=extra).epoch(3))))


def test_processes_share_the_unlabelled_photos(make, tree: Path) -> None:
    dataset, extra = make(count=8), load_unlabelled(tree)
    seen = []
    for rank in (0, 1):
        batches = Loader(dataset, 64, 4, rank=rank, world=2, unlabelled=extra).epoch(0)
        seen.append([batch.photos[2:] for batch in batches])
    first_pass = [photo for pair in zip(*seen, strict=True) for photos in pair for photo in photos][:5]
    assert sorted(first_pass) == [0, 1, 2, 3, 4]


def test_a_batch_must_hold_both_kinds(make, tree: Path) -> None:
    with pytest.raises(ConfigError, match="no batch holds both kinds"):
        Loader(make(), 64, 1, unlabelled=load_unlabelled(tree))
    assert Loader(make(), 64, 2, unlabelled=load_unlabelled(tree), share=0.99).batch == 1
