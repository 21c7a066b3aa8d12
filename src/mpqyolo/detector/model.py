"""Building a detector by family, size and classes."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.backbone import Backbone
from mpqyolo.detector.blocks import Pixels, Stem
from mpqyolo.detector.head import Head
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.neck import Neck
from mpqyolo.detector.paper import build_paper

FAMILIES = ("mpq", "paper", "yolov5")
STRIDES = (8, 16, 32)


class Detector(nn.Module):
    """images uint8 or float 0..255 (B, 3, H, W), H and W multiples of 32 -> Maps.

    The sub-modules' names start with their region (stem, backbone, neck, predict): a BitPolicy's patterns match them.
    """

    strides = STRIDES

    def __init__(
        self,
        family: str,
        size: str,
        classes: Sequence[str],
        options: dict[str, Any],
        stem: nn.Module,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.family, self.size, self.classes, self.options = family, size, tuple(classes), dict(options)
        self.pixels = Pixels()
        self.stem, self.backbone, self.neck, self.predict = stem, backbone, neck, head

    def forward(self, images: Tensor) -> Maps:
        maps = self.backbone(self.stem(self.pixels(images)))
        return self.predict(self.neck(maps))._replace(backbone=maps)


def size_table(size: str) -> dict[str, Any]:
    """The TOML file of an mpq size. Raises ConfigError with the known sizes."""
    folder = resources.files("mpqyolo.detector") / "sizes"
    path = folder / f"{size}.toml"
    if not path.is_file():
        known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
        raise ConfigError(f"unknown size '{size}'; known: {', '.join(known)}")
    return tomllib.loads(path.read_text())


def build_model(family: str, size: str, classes: Sequence[str], **options: Any) -> nn.Module:
    """A detector with fresh weights. classes: names. options: `shortcut`, `act`, and all that a size's TOML file holds.

    Raises ConfigError for an unknown family, size or option.
    """
    if family == "mpq":
        return _build_mpq(size, classes, options)
    if family == "paper":
        return build_paper(size, classes, options)
    if family == "yolov5":
        from mpqyolo.detector.yolov5 import YOLOv5

        if options:
            raise ConfigError(f"family 'yolov5' has no option '{next(iter(options))}'")
        model = YOLOv5(size, len(classes), head="ltrb")
        model.family, model.size, model.classes, model.options, model.strides = "yolov5", size, tuple(classes), {}, STRIDES
        return model
    raise ConfigError(f"unknown family '{family}'; known: {', '.join(FAMILIES)}")


def _build_mpq(size: str, classes: Sequence[str], options: dict[str, Any]) -> Detector:
    settings: dict[str, Any] = {"shortcut": "plain", "act": "rprelu", **size_table(size)}
    unknown = set(options) - set(settings)
    if unknown:
        raise ConfigError(f"family 'mpq' has no option '{sorted(unknown)[0]}'; known: {', '.join(sorted(settings))}")
    settings |= options
    widths, neck = settings["widths"], settings["neck"]
    return Detector(
        "mpq",
        size,
        classes,
        options,
        Stem(settings["stem"], act=settings["act"]),
        Backbone(settings["stem"], widths, settings["depths"], settings["shortcut"], settings["act"]),
        Neck(widths[1:], neck),
        Head(neck, len(classes)),
    )
