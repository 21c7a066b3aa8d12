"""What it costs to differ from a teacher: against plain sums, where it looks, and that classes he lacks are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import flatten
from mpqyolo.train.distil import distil, first, follow, last
from mpqyolo.train.recipe import TeacherPart
from mpqyolo.train.teachers.lesson import Boxes, match
from mpqyolo.train.teachers.network import lesson_of

SIZES, CLASSES = (8, 4, 2), 3


def random_maps(seed: int, width: int = 8) -> Maps:
    torch.manual_seed(seed)
    return Maps(*(tuple(torch.randn(2, c, s, s) for s in SIZES) for c in (4, CLASSES, width, width)))


def learning(maps: Maps) -> Maps:
    return Maps(*(tuple(level.clone().requires_grad_() for level in levels) for levels in maps))


def gradient(levels: tuple[Tensor, ...]) -> Tensor:
    """(B, N, c)"""
    return flatten(tuple(level.grad if level.grad is not None else torch.zeros_like(level) for level in levels))


def test_a_pupil_that_equals_its_teacher_has_nothing_to_learn() -> None:
    teacher = random_maps(0)
    pupil = learning(teacher)
    total, parts = distil(pupil, lesson_of(teacher), TeacherPart(backbone=1.0))
    total.backward()
    assert all(parts[f"distil_{name}"].abs() < 1e-5 for name in ("box", "hint", "backbone"))
    assert float(gradient(pupil.logit).abs().max()) < 1e-5
    other, _ = distil(random_maps(1), lesson_of(teacher), TeacherPart())
    assert other > total + 0.1
    narrow, parts = distil(random_maps(1, width=4), lesson_of(teacher), TeacherPart())
    assert parts["distil_hint"] == 0 and narrow.isfinite()


@pytest.mark.parametrize("which", ["feature", "backbone"])
def test_hints_price_the_angle_between_maps_where_the_teacher_sees(which: str) -> None:
    teacher = random_maps(0)
    pupil = learning(teacher._replace(**{which: random_maps(1).feature}))
    part = TeacherPart(score=0, box=0, hint=1.0 if which == "feature" else 0, backbone=1.0 if which == "backbone" else 0)
    total, parts = distil(pupil, lesson_of(teacher), part)
    assert ("distil_backbone" in parts) == (which == "backbone")
    score = lesson_of(teacher).score.amax(-1)
    weight, cell = score.topk(round(score.shape[1] * part.cells), dim=1)
    mine, theirs = (flatten(getattr(maps, which)) for maps in (pupil, teacher))
    angle = 1 - torch.cosine_similarity(mine, theirs, dim=-1)
    assert float(total.detach()) == pytest.approx(float((angle.detach().gather(1, cell) * weight).sum() / weight.sum()), rel=1e-5)
    total.backward()
    moved = gradient(getattr(pupil, which)).abs().sum(-1)
    assert all(set(row.nonzero().flatten().tolist()) == set(chosen.tolist()) for row, chosen in zip(moved, cell, strict=True))


def test_distillation_looks_only_where_the_teacher_sees_something() -> None:
    teacher, student = random_maps(0), learning(random_maps(1))
    teacher.logit[0][:, :, 3, 5] = 9.0
    distil(student, lesson_of(teacher), TeacherPart(cells=1 / 84))[0].backward()
    touched = student.logit[0].grad.abs().sum((0, 1)) > 0
    assert touched[3, 5] and int(touched.sum()) == 1


def test_or_where_the_two_differ_most() -> None:
    """Teacher and student agree on the surest cell; the student alone sees something at one, the teacher alone at another."""
    teacher = Maps(*(tuple(torch.full((1, c, s, s), -6.0) for s in SIZES) for c in (4, CLASSES)))
    student = learning(teacher)
    with torch.no_grad():
        for maps in (teacher, student):
            maps.logit[0][0, 0, 0, 0] = 6.0
        student.logit[0][0, 1, 2, 2] = 5.0
        teacher.logit[1][0, 2, 1, 1] = 5.5
    part = TeacherPart(region="discrepancy", cells=2 / 84)
    distil(student, lesson_of(teacher), part)[0].backward()
    touched = gradient(student.logit)[0].abs().sum(-1).nonzero().squeeze(1).tolist()
    assert touched == [2 * 8 + 2, 64 + 1 * 4 + 1]
    assert float(student.logit[0].grad[0, 1, 2, 2]) > 0 > float(student.logit[1].grad[0, 2, 1, 1])
    boxes = gradient(student.distance)[0].abs().sum(-1)
    assert boxes[18] < 0.01 * boxes[69] or boxes[69] == 0  # his box counts only where he sees something


@pytest.mark.parametrize("kind", ["weighted", "quality", "varifocal"])
def test_prices_of_scores(kind: str) -> None:
    student, teacher = random_maps(1), random_maps(0)
    _, parts = distil(student, lesson_of(teacher), TeacherPart(loss=kind, cells=1.0))
    p, q = flatten(student.logit).sigmoid(), flatten(teacher.logit).sigmoid()
    cross = -(q * p.log() + (1 - q) * (1 - p).log())
    top = q.amax(-1, keepdim=True)
    factor = {"weighted": top, "quality": 1.0, "varifocal": q + 0.75 * p**2 * (1 - q)}[kind]
    assert parts["distil_score"].item() == pytest.approx(float((cross * factor).sum() / top.sum()), rel=1e-4)


@pytest.mark.parametrize("kind", ["weighted", "quality", "varifocal"])
@pytest.mark.parametrize("region", ["score", "discrepancy"])
def test_classes_that_the_teacher_lacks_learn_nothing_from_him(kind: str, region: str) -> None:
    found = match(("red", "green", "blue"), ("blue", "grey", "red"), "x")
    teacher, student = random_maps(0), learning(random_maps(1))
    lesson = lesson_of(teacher, found)
    assert lesson.known.tolist() == [True, False, True]
    distil(student, lesson, TeacherPart(loss=kind, region=region, cells=0.5))[0].backward()
    moved = gradient(student.logit).abs().sum((0, 1))
    assert moved[1] == 0 and moved[0] > 0 and moved[2] > 0
    swapped = flatten(teacher.logit).sigmoid()[..., [2, 0]]
    assert torch.equal(lesson.score[..., [0, 2]], swapped)


def test_boxes_of_a_teacher_are_labels_in_the_classes_that_he_knows() -> None:
    student = learning(random_maps(2))
    targets = torch.tensor([[0, 2, 8.0, 8, 40, 40], [1, 0, 0, 0, 20, 30]])
    boxes = Boxes(targets, torch.tensor([True, False, True]))
    loss = DetectionLoss(CLASSES)
    price, parts = follow(student, boxes, TeacherPart(pseudo=0.5), loss, (64, 64))
    price.backward()
    assert gradient(student.logit).abs().sum((0, 1))[1] == 0
    two = student._replace(logit=tuple(level[:, [0, 2]] for level in student.logit))
    wanted, _ = DetectionLoss(2)(two, torch.cat((targets[:, :1], torch.tensor([[1.0], [0]]), targets[:, 2:]), 1), (64, 64))
    assert price.item() == pytest.approx(wanted.item() / 2) and set(parts) == {"pseudo_box", "pseudo_class"}
    everything, _ = follow(student, Boxes(targets), TeacherPart(), loss, (64, 64))
    assert torch.equal(everything, loss(student, targets, (64, 64))[0]) and loss.classes == CLASSES


def test_halves_of_a_batch() -> None:
    maps = random_maps(0)
    assert first(maps, 2) is maps
    assert torch.equal(first(maps, 1).logit[1], maps.logit[1][:1]) and torch.equal(last(maps, 1).feature[0], maps.feature[0][1:])
    assert F.mse_loss(last(maps, 0).distance[2], maps.distance[2]) == 0
