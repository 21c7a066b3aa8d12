import math

import pytest
import torch

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.assign import assign, iou
from mpqyolo.detector.loss import DetectionLoss, ciou
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import decode_boxes, flatten, points

SHAPES, STRIDES, CLASSES = [(8, 8), (4, 4), (2, 2)], (8, 16, 32), 3
TARGETS = torch.tensor(
    [[0, 1, 4.0, 6.0, 40.0, 30.0], [0, 2, 30.0, 20.0, 62.0, 60.0], [2, 0, 10.0, 10.0, 20.0, 24.0], [2, 1, 50.0, 2.0, 53.0, 4.0]]
)


def random_maps(seed: int, dtype=torch.float32, spread: float = 0.6) -> Maps:
    g = torch.Generator().manual_seed(seed)
    distance = tuple((torch.randn(3, 4, h, w, generator=g) * spread + 0.7).to(dtype).requires_grad_() for h, w in SHAPES)
    logit = tuple((torch.randn(3, CLASSES, h, w, generator=g) - 2).to(dtype).requires_grad_() for h, w in SHAPES)
    return Maps(distance, logit)


def loss_by_loops(maps: Maps) -> torch.Tensor:
    """The same price, one number at a time, with torch's own cross-entropy and CIoU spelled out as in the paper."""
    centres, stride = points(SHAPES, STRIDES)
    distance, logit = flatten(maps.distance), flatten(maps.logit)
    boxes = decode_boxes(distance, centres, stride)
    found = assign(logit, boxes, TARGETS, SHAPES, STRIDES)
    wanted = torch.zeros_like(logit)
    box_loss = logit.new_zeros(())
    for i, p, t, q in zip(*(c.tolist() for c in found), strict=True):
        wanted[i, p, int(TARGETS[t, 1])] = q
        x1, y1, x2, y2 = boxes[i, p]
        u1, v1, u2, v2 = TARGETS[t, 2:]
        inter = (torch.min(x2, u2) - torch.max(x1, u1)).clamp(min=0) * (torch.min(y2, v2) - torch.max(y1, v1)).clamp(min=0)
        overlap = inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)
        rho = ((x1 + x2 - u1 - u2) / 2) ** 2 + ((y1 + y2 - v1 - v2) / 2) ** 2
        diagonal = (torch.max(x2, u2) - torch.min(x1, u1)) ** 2 + (torch.max(y2, v2) - torch.min(y1, v1)) ** 2
        v = 4 / math.pi**2 * (torch.atan((u2 - u1) / (v2 - v1)) - torch.atan((x2 - x1) / (y2 - y1))) ** 2
        a = (v / (1 - overlap + v)).detach()
        box_loss = box_loss + q * (1 - (overlap - rho / diagonal - a * v))
    total = max(1.0, float(found.quality.sum()))
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logit, wanted, reduction="sum")
    return (5.0 * box_loss + cross) / total


@pytest.mark.parametrize("seed", range(4))
def test_value_and_gradients_equal_plain_loops(seed):
    maps = random_maps(seed)
    total, parts = DetectionLoss(CLASSES)(maps, TARGETS, 64)
    plain = loss_by_loops(maps)
    assert total.item() == pytest.approx(plain.item(), rel=1e-5)
    assert total.item() == pytest.approx(5 * float(parts["box"]) + float(parts["class"]), rel=1e-6)
    leaves = (*maps.distance, *maps.logit)
    for ours, theirs in zip(torch.autograd.grad(total, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_ciou_is_one_on_itself_and_falls_with_distance():
    box = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    assert float(ciou(box, box)) == pytest.approx(1, abs=1e-6)
    apart = [float(ciou(box + dx, box)) for dx in (0.0, 5.0, 25.0, 100.0)]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 0
    assert float(iou(box + 100.0, box)) == 0


def test_boxes_are_clipped_to_the_input():
    maps = Maps(*(tuple(level[..., : level.shape[2] // 2, :] for level in kind) for kind in random_maps(2)))
    wild = torch.tensor([[0, 1, -20.0, -9.0, 30.0, 20.0], [2, 0, 40.0, 10.0, 90.0, 50.0]])
    tame = torch.tensor([[0, 1, 0.0, 0.0, 30.0, 20.0], [2, 0, 40.0, 10.0, 64.0, 32.0]])
    loss = DetectionLoss(CLASSES)
    assert loss(maps, wild, (32, 64))[0].item() == loss(maps, tame)[0].item() != loss(maps, wild)[0].item()


def test_no_boxes_at_all_still_teaches_the_background():
    maps = random_maps(0)
    total, parts = DetectionLoss(CLASSES)(maps, torch.zeros(0, 6), 64)
    total.backward()
    assert float(parts["box"]) == 0 and float(parts["class"]) > 0
    assert all((m.grad > 0).all() for m in maps.logit) and all((m.grad == 0).all() for m in maps.distance)


@pytest.mark.parametrize("value", [-80.0, 80.0, 3e4])
def test_wild_logits_stay_finite_and_find_back(value):
    distance = tuple(torch.full((3, 4, h, w), value, requires_grad=True) for h, w in SHAPES)
    logit = tuple(torch.full((3, CLASSES, h, w), value, requires_grad=True) for h, w in SHAPES)
    total, _ = DetectionLoss(CLASSES)(Maps(distance, logit), TARGETS, 64)
    gradients = torch.autograd.grad(total, (*distance, *logit))
    assert torch.isfinite(total) and all(torch.isfinite(g).all() for g in gradients)
    if value > 0:  # boxes far too large: shrinking them must pay, past the clamp too
        assert max(float(g.max()) for g in gradients[:3]) > 0


def test_half_precision_maps_are_priced_in_float32():
    half = random_maps(1, torch.float16)
    full = Maps(tuple(m.detach().float() for m in half.distance), tuple(m.detach().float() for m in half.logit))
    total, _ = DetectionLoss(CLASSES)(half, TARGETS, 64)
    assert total.dtype == torch.float32 and total.item() == DetectionLoss(CLASSES)(full, TARGETS, 64)[0].item()


def test_maps_of_other_classes_are_refused():
    with pytest.raises(ConfigError, match="predicts 3 classes"):
        DetectionLoss(4)(random_maps(0), TARGETS)


def test_direct_descent_on_maps_finds_the_boxes():
    distance = tuple(torch.full((3, 4, h, w), 1.0, requires_grad=True) for h, w in SHAPES)
    logit = tuple(torch.full((3, CLASSES, h, w), -4.6, requires_grad=True) for h, w in SHAPES)
    loss, optimiser = DetectionLoss(CLASSES), torch.optim.Adam((*distance, *logit), 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        loss(Maps(distance, logit), TARGETS, 64)[0].backward()
        optimiser.step()
    score = flatten(logit).sigmoid()
    boxes = decode_boxes(flatten(distance), *points(SHAPES, STRIDES))
    for image, label, *box in TARGETS.tolist():
        best = int(score[int(image), :, int(label)].argmax())
        overlap = iou(boxes[int(image), best], torch.tensor(box)).item()
        tiny = box[2] - box[0] < 8  # holds no centre, so no box of positive distances can fit it
        assert overlap > (0.02 if tiny else 0.9), (image, label, overlap)
        assert tiny or score[int(image), best, int(label)] > 0.6
    assert score[1].max().item() < 0.05  # the image without boxes
