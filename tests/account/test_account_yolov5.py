"""The reference counts against the published ones, and the ratios that follow from them."""

import pytest

from mpqyolo.account.cost import Cost, LayerCost
from mpqyolo.account.yolov5 import ratios, yolov5
from mpqyolo.core.errors import ConfigError

BITS = {"stem": 1, "backbone": 1, "neck": 4, "predict": 4}


@pytest.mark.parametrize(
    ("size", "parameters", "gmacs", "regions"),
    [
        ("n", 1_867_405, 2.234, (0.177, 1.206, 0.668, 0.183)),
        ("s", 7_225_885, 8.217, (0.354, 4.823, 2.674, 0.366)),
        ("m", 21_172_173, 24.436, (0.531, 14.982, 8.376, 0.548)),
        ("l", 46_533_693, 54.497, None),
        ("x", 86_705_005, 102.724, None),
    ],
)
def test_published_counts(size, parameters, gmacs, regions):
    net = yolov5(size)
    assert net.parameters == parameters and net.macs / 1e9 == pytest.approx(gmacs, abs=5e-4)
    if regions:
        assert [v / 1e9 for v in net.region_macs().values()] == pytest.approx(regions, abs=6e-4)
    assert net.cost().macs == {1: 0, 4: 0, 8: 0, 32: net.macs} and net.cost().elementwise_ops == net.elementwise_ops


@pytest.mark.parametrize(
    ("changes", "s80", "m20"),
    [
        ({}, 17.83, 18.37),
        ({"stem": 4}, 16.45, 17.59),
        ({"stem": 8}, 15.11, 16.77),
        ({"stem": 8, "predict": 8}, 13.94, 16.54),
        ({"stem": 32}, 10.15, 13.13),
    ],
)
def test_ratios_of_mixed_bits(changes, s80, m20):
    for size, classes, expected in (("s", 80, s80), ("m", 20, m20)):
        net = yolov5(size, classes)
        assert net.macs / net.ops_at(BITS | changes) == pytest.approx(expected, abs=0.01)
    assert net.macs / net.ops_at(dict.fromkeys(BITS, 4)) == 8


def test_size_of_everything_at_one_and_four_bits():
    for size, classes, ratio in (("s", 80, 14.1), ("m", 20, 14.2)):
        net = yolov5(size, classes)
        bits = sum(v.weights * BITS[v.region] for v in net.layers)
        assert net.size_bytes * 8 / bits == pytest.approx(ratio, abs=0.07)


def test_image_size_scales_macs_only():
    small, large = yolov5("n", 20, 320), yolov5("n", 20, (640, 320))
    assert (
        large.macs == 2 * small.macs
        and large.parameters == small.parameters
        and large.elementwise_ops == 2 * small.elementwise_ops
    )


def test_ratios_of_a_cost():
    net = yolov5("n", 80, 320)
    same = ratios(net.cost(), "n", 80, 320)
    assert same["ops_ratio"] == same["size_ratio"] == same["ops_ratio_elementwise"] == 1
    layer = LayerCost("a", "conv", 1, 1, net.macs, 0, (1, 1, 1), 0, {"bias": 2 * net.elementwise_ops})
    ours = ratios(Cost((layer,), 1, net.size_bytes // 4), "n", 80, 320)
    assert ours["ops_ratio"] == pytest.approx(64) and ours["size_ratio"] == 4
    expected = (net.macs + net.elementwise_ops) / (net.macs / 64 + net.elementwise_ops)
    assert ours["ops_ratio_elementwise"] == pytest.approx(expected)


@pytest.mark.parametrize(("size", "image"), [("z", 640), ("n", 100), ("n", 0), ("n", (640, 17))])
def test_faults(size, image):
    with pytest.raises(ConfigError):
        yolov5(size, 80, image)
