"""The letterbox against its definition in plain integers, and against Pillow's antialiased resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mpqyolo.core.image import letterbox, placement, resize, resize_axis


def plain_line(line, m):
    """Section 6 for one line of numbers."""
    n = len(line)
    if n == m:
        return line
    result, reach = [], 2 * max(n, m)
    for i in range(m):
        weights = [max(reach - abs((2 * i + 1) * n - (2 * j + 1) * m), 0) for j in range(n)]
        total = sum(weights)
        q = [w * 16384 // total for w in weights]
        q[weights.index(max(weights))] += 16384 - sum(q)
        result.append((sum(a * b for a, b in zip(q, line, strict=True)) + 8192) >> 14)
    return result


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_a_line_is_the_definition(line, m):
    photo = np.array(line, np.uint8)[None, :, None]
    assert resize_axis(photo, m, 1)[0, :, 0].tolist() == plain_line(line, m)
    assert resize_axis(photo.transpose(1, 0, 2), m, 0)[:, 0, 0].tolist() == plain_line(line, m)


@pytest.mark.parametrize(("n", "m"), [(2000, 64), (7, 320), (1, 320), (333, 320), (321, 320)])
def test_long_lines(n, m):
    line = np.random.default_rng(n).integers(0, 256, n).tolist()
    assert resize_axis(np.array(line, np.uint8)[None, :, None], m, 1)[0, :, 0].tolist() == plain_line(line, m)


@pytest.mark.parametrize(("w", "h", "width", "height"), [(500, 375, 320, 240), (100, 80, 320, 256), (640, 480, 320, 100)])
def test_near_pillow(w, h, width, height):
    photo = np.random.default_rng(0).integers(0, 256, (h, w, 3)).astype(np.uint8)
    theirs = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(photo, height, width).astype(int) - theirs).max() <= 1


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(320, 320), (64, 96), (96, 64), (640, 640)]))
@settings(deadline=None, max_examples=100)
def test_placement_fits_and_keeps_the_shape(w, h, size):
    height, width = size
    at = placement(w, h, width, height)
    assert 1 <= at.nw <= width and 1 <= at.nh <= height and (at.nw == width or at.nh == height)
    assert at.left == (width - at.nw) // 2 and at.top == (height - at.nh) // 2
    scale = min(width / w, height / h)
    assert abs(at.nw - max(1, w * scale)) <= 0.51 and abs(at.nh - max(1, h * scale)) <= 0.51


def test_letterbox_fills_with_grey_and_centres():
    photo = np.full((20, 40, 3), 7, np.uint8)
    image, at = letterbox(photo, 64, 64)
    assert at == (0, 16, 64, 32, 40, 20)
    assert (image[16:48] == 7).all() and (image[:16] == 114).all() and (image[48:] == 114).all()
    same, at = letterbox(image, 64, 64)
    assert np.array_equal(same, image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (20, 10000, 3), (10000, 20, 3), (3, 1, 3)])
def test_extreme_photos(shape):
    photo = np.full(shape, 200, np.uint8)
    image, at = letterbox(photo, 64, 96)
    assert image.shape == (64, 96, 3)
    assert (image[at.top : at.top + at.nh, at.left : at.left + at.nw] == 200).all()


def test_boxes_go_there_and_back():
    at = placement(500, 375, 320, 320)
    boxes = np.array([[0, 0, 500, 375], [10.5, 20, 100, 300]], np.float32)
    inside = at.to_input(boxes)
    assert inside[0].tolist() == [0, 40, 320, 280]
    assert np.allclose(at.to_photo(inside), boxes, atol=1e-3)
    assert at.to_photo(np.array([[-50, -50, 400, 400]], np.float32)).tolist() == [[0, 0, 500, 375]]
    assert at.to_photo(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_to_photo_is_one_float32_division_and_one_product():
    at, f = placement(333, 217, 320, 320), np.float32
    x, y = f(123.456), f(77.7)
    got = at.to_photo(np.array([[x, y, x, y]], f))[0]
    assert got[0] == (x - f(at.left)) * (f(333) / f(at.nw)) and got[1] == (y - f(at.top)) * (f(217) / f(at.nh))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_refuses_what_is_no_photo(bad):
    with pytest.raises(ValueError, match="uint8"):
        letterbox(bad, 32, 32)
