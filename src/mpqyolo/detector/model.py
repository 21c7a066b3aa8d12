"""Building a detector by family, size and classes."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.backbone import Backbone
from mpqyolo.detector.blocks import ACTIVATIONS, SHORTCUTS, Pixels, Stem
from mpqyolo.detector.head import Head
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.neck import Neck
from mpqyolo.detector.paper import build_paper
from mpqyolo.detector.points import STRIDES

FAMILIES = ("mpq", "paper", "yolov5")


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
    _check(settings)
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


def _check(settings: dict[str, Any]) -> None:
    """Raise ConfigError for a value that family mpq cannot be built with."""
    for name, known in (("shortcut", SHORTCUTS), ("act", ACTIVATIONS)):
        if settings[name] not in known:
            raise ConfigError(f"model.options.{name} can be {', '.join(known)}, not {settings[name]!r}")
    stem, widths = settings["stem"], settings["widths"]
    for name, values, count, least in (
        ("stem", [stem], 1, 1),
        ("widths", widths, len(STRIDES) + 1, 1),
        ("depths", settings["depths"], len(STRIDES) + 1, 0),
        ("neck", settings["neck"], len(STRIDES), 1),
    ):
        whole = isinstance(values, (list, tuple)) and all(type(n) is int and n >= least for n in values)
        if not whole or len(values) != count:
            wanted = f"{count} whole numbers" if count > 1 else "a whole number"
            raise ConfigError(f"model.options.{name} must be {wanted} from {least} on, not {settings[name]!r}")
    if settings["shortcut"] != "none":
        for c_in, c_out in zip([stem, *widths], widths, strict=False):
            if max(c_in, c_out) % min(c_in, c_out):
                raise ConfigError(f"model.options: channels of neighbouring stages must divide: {c_in} and {c_out} do not")
