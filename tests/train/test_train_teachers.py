"""Teachers: made-up ONNX detectors against plain formulas, cells of other sizes, classes by name, and descriptions."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from train_detectors import cell_means, colours_teacher, make_boxes, make_detector

from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.detector.decode import Dense
from mpqyolo.detector.points import STRIDES, decode_boxes, points
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.train.recipe import TeacherPart
from mpqyolo.train.teachers.cells import _asked, bring, sayable
from mpqyolo.train.teachers.description import carried, read_description
from mpqyolo.train.teachers.lesson import AsBoxes, Boxes, Lesson, Teacher, match
from mpqyolo.train.teachers.open import open_teacher

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE = 64
CENTRE, STRIDE = points([(SIDE // s, SIDE // s) for s in STRIDES], STRIDES)
NAMES = ("motorcycle", "car", "tv")
ours = ("zebra", "car", "motorbike")  # the teacher knows no zebra, we no tv


def open_(path: Path | str, classes: tuple[str, ...] = ours, **options: object) -> Teacher:
    return open_teacher(TeacherPart(path=str(path), **options), classes, lambda m: m, contextlib.nullcontext())


def images(count: int = 2, side: int = SIDE) -> torch.Tensor:
    small = torch.randint(0, 256, (count, 3, side // 8, side // 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    return small.repeat_interleave(8, 2).repeat_interleave(8, 3)


def describe(folder: Path, text: str) -> Path:
    (folder / "it.toml").write_text(f"weights = 'it.onnx'\nclasses = {list(NAMES)}\n{text}")
    return folder / "it.toml"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("joined", "first", "batch"), [(False, False, 1), (False, True, "n"), (True, False, "n")])
def test_a_distribution_of_distances(tmp_path: Path, joined: bool, first: bool, batch: int | str) -> None:
    rng = np.random.default_rng(0)
    matrices = [np.column_stack([rng.normal(0, 1.5, (3 + 4 * 5, 3)), rng.normal(0, 0.5, 23)]) for _ in STRIDES]
    mean, std = np.array([10.0, 20.0, 30.0]), np.array([100.0, 120.0, 90.0])
    outputs = ""
    if joined:
        make_detector(tmp_path / "it.onnx", matrices, STRIDES, SIDE, batch, joined=True)
    else:
        halves = [m[:3] for m in matrices] + [m[3:] for m in matrices]
        make_detector(tmp_path / "it.onnx", halves, STRIDES * 2, SIDE, batch, channels_first=first)
        names = ["map0", "map1", "map2"] if first else [0, 1, 2]
        outputs = f"scores = {names}\nboxes = [3, 4, 5]\nchannels_first = {str(first).lower()}"
    shown = f"[input]\ncolour = 'bgr'\nmean = {mean.tolist()}\nstd = {std.tolist()}"
    teacher = open_(describe(tmp_path, f"{shown}\n[output]\nkind = 'distribution'\nsigmoid = true\n{outputs}"))
    lesson = teacher(images())
    assert isinstance(lesson, Lesson) and teacher.dense and lesson.known.tolist() == [False, True, True]
    for image, score, distance in zip(images(), lesson.score, lesson.distance, strict=True):
        pixels = (image.numpy()[::-1].transpose(1, 2, 0) - mean) / std
        rows = np.concatenate([cell_means(pixels.transpose(2, 0, 1), s) @ m.T for m, s in zip(matrices, STRIDES, strict=True)])
        assert np.allclose(score[:, 0], 0) and np.allclose(score[:, 1], sigmoid(rows[:, 1]), atol=1e-4)
        assert np.allclose(score[:, 2], sigmoid(rows[:, 0]), atol=1e-4)
        share = np.exp(rows[:, 3:].reshape(-1, 4, 5))
        reach = (share / share.sum(-1, keepdims=True) * np.arange(5)).sum(-1) * STRIDE.numpy()[:, None]
        c = CENTRE.numpy()
        box = np.clip(np.concatenate([c - reach[:, :2], c + reach[:, 2:]], 1), 0, SIDE)
        assert np.allclose(decode_boxes(distance, CENTRE, STRIDE), box, atol=1e-2)


def test_objectness_times_class_and_boxes_that_leave_their_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    matrices = [np.column_stack([rng.normal(0, 2, (8, 3)), np.full(8, 0.5)]) for _ in STRIDES]
    make_detector(tmp_path / "it.onnx", matrices, STRIDES, SIDE, joined=True)
    text = "[input]\nstd = [255, 255, 255]\n[output]\nkind = 'objectness'\nsigmoid = true\ncentre = 0.0"
    lesson = open_(describe(tmp_path, text))(images(1))
    pixels = images(1)[0].numpy() / 255
    rows = np.concatenate([cell_means(pixels, s) @ m.T for m, s in zip(matrices, STRIDES, strict=True)])
    stride, middle = STRIDE.numpy()[:, None], CENTRE.numpy()
    at = middle - stride / 2 + rows[:, :2] * stride
    half = np.exp(rows[:, 2:4]) * stride / 2
    box = np.clip(np.concatenate([at - half, at + half], 1), 0, SIDE)
    car = sigmoid(rows[:, 4]) * sigmoid(rows[:, 6])
    inside = (box[:, :2] < middle).all(1) & (box[:, 2:] > middle).all(1)
    assert 10 < inside.sum() < 80
    said = decode_boxes(lesson.distance[0], CENTRE, STRIDE).numpy()
    assert np.allclose(said[inside], box[inside], atol=1e-2)
    assert np.allclose(lesson.score[0, inside, 1], car[inside], atol=1e-4)
    out = ~inside
    assert (lesson.score[0, out, 1].numpy() < car[out]).all()
    assert (said[:, :2] < middle).all() and (said[:, 2:] > middle).all()


def test_boxes_alone(tmp_path: Path) -> None:
    # columns: class, score, corners in px of a 128 px input
    found = [
        [1, 0.9, 10, 20, 60, 300],
        [0, 0.8, 30, 30, 50, 40],
        [2, 0.9, 0, 0, 9, 9],
        [1, 0.3, 0, 0, 9, 9],
        [-1, 0.9, 0, 0, 9, 9],
    ]
    make_boxes(tmp_path / "it.onnx", np.array(found), 128)
    text = "[output]\nkind = 'boxes'\ncolumns = ['class', 'score', 'x1', 'y1', 'x2', 'y2']"
    teacher = open_(describe(tmp_path, text), box_score=0.5)
    said = teacher(images())
    assert isinstance(said, Boxes) and not teacher.dense
    assert said.targets.tolist() == [[p, *row] for p in (0, 1) for row in ([1, 5, 10, 30, 64], [2, 15, 15, 25, 20])]
    assert said.known.tolist() == [False, True, True]


@pytest.mark.parametrize("classes", [("red", "blue"), ("cat", "dog", "red")])
def test_a_published_yolov5_tells_the_surest_of_a_cells_boxes(published: tuple[Path, YOLOv5], classes: tuple[str, ...]) -> None:
    path, model = published
    lesson = open_(path, classes)(images())
    assert isinstance(lesson, Lesson)
    with torch.no_grad():
        seen = model.eval()(images())
    theirs = ["dog", "red", "cat"]
    start = 0
    shapes = [(SIDE // s, SIDE // s) for s in STRIDES]
    for level, (h, w) in enumerate(shapes):
        cells = h * w
        first = sum(a * b for a, b in shapes[:level])
        for cell in range(0, cells, 3):
            rows = [start + anchor * cells + cell for anchor in range(3)]
            known = [theirs.index(name) for name in classes if name in theirs]
            best = max(rows, key=lambda row: float(seen.score[1, row, known].max()))
            at = first + cell
            box = seen.box[1, best].clamp(0, SIDE)
            told = decode_boxes(lesson.distance[1, at], CENTRE[at], STRIDE[at])
            inside = bool((CENTRE[at] > box[:2]).all() and (CENTRE[at] < box[2:]).all())
            for column, name in enumerate(classes):
                score = float(seen.score[1, best, theirs.index(name)]) if name in theirs else 0.0
                assert float(lesson.score[1, at, column]) == pytest.approx(score, abs=1e-3) or (not inside and score > 0)
            assert not inside or torch.allclose(told, box, atol=0.05)
        start += 3 * cells
    assert [tuple(f.shape[1:]) for f in lesson.feature] == [(64, 8, 8), (128, 4, 4), (256, 2, 2)]
    assert [tuple(f.shape[1:]) for f in lesson.backbone] == [(64, 8, 8), (128, 4, 4), (256, 2, 2)]
    assert (lesson.known is None) == (len(classes) == 3)


def test_maps_told_as_boxes(tmp_path: Path) -> None:
    picture = torch.full((1, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    picture[0, :, 16:32, 32:48] = torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None]
    teacher = open_(colours_teacher(tmp_path), ("blue", "red"), use="boxes", box_score=0.7)
    assert isinstance(teacher, AsBoxes)
    targets = teacher(picture).targets
    assert len(targets) >= 1 and (targets[:, 1] == 0).all() and (targets[:, 0] == 0).all()
    x1, y1, x2, y2 = targets[:, 2:].mean(0).tolist()
    assert x1 < 40 < x2 and y1 < 24 < y2


@pytest.mark.parametrize("side", [64, 96, "s"])
def test_an_input_of_another_size_is_carried_back(tmp_path: Path, side: int | str) -> None:
    """A blue corner: where the student looks, the score is of that colour, whatever size the teacher works at."""
    picture = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    picture[0, 2, 32:, 32:] = 255
    lesson = open_(colours_teacher(tmp_path, side, "n"), ("blue",))(picture)
    quarter = (CENTRE > 40).all(1)
    away = (CENTRE < 24).any(1)
    assert lesson.score.shape == (1, 84, 1) and lesson.known is None
    assert float(lesson.score[0, quarter & (STRIDE < 32), 0].min()) > 0.6 > 0.2 > float(lesson.score[0, away, 0].max())
    ratio = 1.0 if side == "s" else side / SIDE
    middle = (torch.floor(CENTRE[27] * ratio / 8) + 0.5) * 8
    box = torch.cat((middle - 8, middle + 8)) / ratio
    assert torch.allclose(decode_boxes(lesson.distance[0], CENTRE, STRIDE)[27], box, atol=0.1)


def test_which_levels_are_asked() -> None:
    assert _asked([8, 16, 32]) == [[0], [1], [2]]
    assert _asked([8, 16, 32, 64]) == [[0], [1], [2, 3]]
    assert _asked([4, 8, 16, 32]) == [[0, 1], [2], [3]]  # the student's image is half the teacher's: one level on
    assert _asked([16, 32]) == [[0], [0], [1]]


def test_a_level_too_many_answers_where_it_is_surer() -> None:
    shapes, strides = [(8, 8), (4, 4), (2, 2), (1, 1)], (8, 16, 32, 64)
    score = torch.zeros(1, 85, 2)
    box = torch.zeros(1, 85, 4)
    score[0, 81, 0], box[0, 81] = 0.9, torch.tensor([32.0, 0.0, 64.0, 30.0])  # of the second cell of stride 32
    score[0, 84, 1], box[0, 84] = 0.5, torch.tensor([-5.0, 2.0, 70.0, 60.0])
    seen = bring(Dense(box, score), shapes, strides, (1.0, 1.0), (SIDE, SIDE))
    assert seen.score[0, 80:].tolist() == [[0, 0.5], [pytest.approx(0.9), 0], [0, 0.5], [0, 0.5]]
    assert seen.box[0, 80].tolist() == [0, 2, 64, 60] and seen.box[0, 81].tolist() == [32, 0, 64, 30]
    distance, fair = sayable(seen, (SIDE, SIDE))
    assert torch.allclose(decode_boxes(distance, CENTRE, STRIDE)[0, 81], seen.box[0, 81], atol=1e-3)
    assert fair[0, 82].tolist() == pytest.approx([0, 0.5], abs=1e-4)  # its centre lies in the box


def test_classes_go_by_name() -> None:
    same = match(("car", "tvmonitor"), ("tv", "car"), "x")
    assert same.known is None and same.pick(torch.tensor([[0.1, 0.2]])).tolist() == [[pytest.approx(0.2), pytest.approx(0.1)]]
    some = match(ours, NAMES, "x")
    assert some.pick(torch.ones(2, 3)).tolist() == [[0, 1, 1]] * 2
    with pytest.raises(ConfigError, match="it: the teacher knows none of the data's classes red; it knows motorcycle, car"):
        match(("red",), NAMES, "it")


def test_carried_descriptions() -> None:
    assert carried() == ("picodet-s", "yolox-nano")
    for name in carried():
        about, weights = read_description(name)
        assert len(about.names) == 80 and about.names[79] == "toothbrush" and weights is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[output]\nkind = 'boxes'\ncolumn = ['x1']", ["output.column", "do you mean 'columns'"]),
        ("[output]\nkind = 'boxes'\ncolumns = ['x1', 'x1']", ["columns", "each once"]),
        ("[inputs]\n[output]\nkind = 'boxes'", ["'inputs'", "do you mean 'input'"]),
        ("[output]\nkind = 'anchors'", ["output.kind", "distribution"]),
        ("strides = 8", ["strides"]),
        ("strides = []\n[output]\nkind = 'distribution'", ["strides"]),
        ("strides = [0, 16, 32]\n[output]\nkind = 'distribution'", ["strides.0", "1"]),
        ("[input]\nstd = [0, 1, 1]\n[output]\nkind = 'distribution'", ["input.std.0", "greater than 0"]),
        ("[input]\nmean = [nan, 1, 1]\n[output]\nkind = 'distribution'", ["input.mean.0", "finite"]),
        ("[input]\nsize = [0, 64]\n[output]\nkind = 'distribution'", ["input.size.0", "1"]),
        ("[output", ["not TOML"]),
        ("[output]\nkind = 'objectness'", ["[84, 23]", "objectness", "3 classes at 84 cells"]),
        ("[output]\nkind = 'boxes'", ["23 columns"]),
        ("strides = [8]\n[output]\nkind = 'distribution'", ["[84, 23]", "64 cells"]),
        ("[output]\nkind = 'distribution'\nscores = ['cls']", ["no output 'cls'", "rows"]),
    ],
)
def test_a_wrong_description_is_one_clear_line(tmp_path: Path, text: str, words: list[str]) -> None:
    matrices = [np.ones((23, 4))] * 3
    make_detector(tmp_path / "it.onnx", matrices, STRIDES, SIDE, joined=True)
    with pytest.raises(ConfigError) as fault:
        open_(describe(tmp_path, text))
    assert "\n" not in str(fault.value) and all(word in str(fault.value) for word in words), str(fault.value)


def test_outputs_that_are_no_levels_of_one_sort(tmp_path: Path) -> None:
    make_detector(tmp_path / "it.onnx", [np.ones((channels, 4)) for channels in (3, 3, 20)], STRIDES, SIDE)
    with pytest.raises(ConfigError, match=r"outputs \[0, 1, 2\] are \[64, 3\], \[16, 3\], \[4, 20\], so they are not levels"):
        open_(describe(tmp_path, "[output]\nkind = 'distribution'\nscores = [0, 1, 2]"))
    make_boxes(tmp_path / "it.onnx", np.ones((1, 6)), SIDE)
    with pytest.raises(ConfigError, match=r"output 'mean' is \[1\], and no rows"):
        open_(describe(tmp_path, "[output]\nkind = 'boxes'\nscores = ['mean']"))


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    file = describe(tmp_path, "[output]\nkind = 'distribution'")
    with pytest.raises(CheckpointError, match=r"it\.onnx: there is no such file"):
        open_(file)
    (tmp_path / "it.onnx").write_text("nothing")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot read it"):
        open_(file)
    with pytest.raises(ConfigError, match=r"--teacher NAME=.*picodet-s, yolox-nano"):
        open_(tmp_path / "it.onnx")
    with pytest.raises(ConfigError, match="no teacher 'nobody'"):
        open_(tmp_path / "it.onnx", model="nobody")
    file.write_text("[output]\nkind = 'boxes'")
    with pytest.raises(ConfigError, match="names no ONNX file"):
        open_(file)
