"""BitPolicy: which bits each layer has. Nothing downstream decides this again."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import NamedTuple

from mpqyolo.core.errors import ConfigError

REGIONS = ("stem", "backbone", "neck", "predict")


class Bits(NamedTuple):
    """Bits of a layer's weights and of its input activations; 32 is float."""

    weight: int
    activation: int


@dataclass(frozen=True)
class BitPolicy:
    """An ordered list of (pattern, bits); the first pattern that matches a layer's name decides.

    Patterns are shell wildcards on dotted layer names, which start with their region: `backbone.stage8.*`.
    """

    name: str
    rules: tuple[tuple[str, Bits], ...]

    def bits(self, layer: str) -> Bits:
        """Bits of the layer with this dotted name. Raises ConfigError if no rule matches."""
        for pattern, bits in self.rules:
            if fnmatch.fnmatchcase(layer, pattern):
                return bits
        raise ConfigError(f"policy '{self.name}' has no rule for layer '{layer}'; add a pattern that matches it")

    def with_rules(self, *rules: tuple[str, Bits], name: str = "") -> BitPolicy:
        """The same policy with further rules that are asked first. name: its name, else the old one with a plus."""
        return BitPolicy(name or self.name + "+", tuple(rules) + self.rules)

    def regions(self) -> dict[str, Bits]:
        """Bits that each region has where no finer rule speaks: what a model card prints."""
        return {region: self.bits(f"{region}.*") for region in REGIONS}


def _by_region(name: str, stem: Bits, backbone: Bits, neck: Bits, predict: Bits) -> BitPolicy:
    return BitPolicy(name, (("stem*", stem), ("backbone*", backbone), ("neck*", neck), ("predict*", predict)))


# The backbone's layers at strides 4 and 8, of family mpq and of family paper.
_EARLY = ("backbone.stage4.*", "backbone.stage8.*", "backbone.down2*", "backbone.c2.*", "backbone.down3*", "backbone.c3.*")


# The stem reads pixels, which have 8 bits wherever the policy does not ask for fewer.
_W1A4 = _by_region("w1a4", Bits(8, 8), Bits(1, 4), Bits(4, 4), Bits(8, 4))
_ONE_BIT = _by_region("default", Bits(8, 8), Bits(1, 1), Bits(4, 4), Bits(8, 4))
POLICIES = {
    policy.name: policy
    for policy in (
        _ONE_BIT,
        _ONE_BIT.with_rules(*((layers, Bits(1, 2)) for layers in _EARLY), name="mixed"),
        _by_region("paper", Bits(4, 4), Bits(1, 1), Bits(4, 4), Bits(4, 4)),
        _by_region("w1a2", Bits(8, 8), Bits(1, 2), Bits(4, 4), Bits(8, 4)),
        _W1A4,
        # Near the input layers are narrow: few bytes, and of a trained network they bear one bit least (study `places`).
        _W1A4.with_rules(*((layers, Bits(4, 4)) for layers in _EARLY), name="deep"),
        _by_region("w4a4", Bits(8, 8), Bits(4, 4), Bits(4, 4), Bits(8, 4)),
        _by_region("float", Bits(32, 32), Bits(32, 32), Bits(32, 32), Bits(32, 32)),
    )
}


def policy(name: str) -> BitPolicy:
    """The named policy. Raises ConfigError with the known names."""
    try:
        return POLICIES[name]
    except KeyError:
        raise ConfigError(f"unknown policy '{name}'; known: {', '.join(POLICIES)}") from None
