"""What every quantiser shares: bits, a strength between float and quantised, and a first-use initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError


class Quantiser(nn.Module):
    """Maps x to strength * quantised(x) + (1 - strength) * float(x).

    `strength`, `bits` and `initialised` are buffers, so a state dict carries them; subclasses give `quantise`. `uses` is in how
    many places of the network it stands: its scale is set from what it meets in all of them.
    """

    widths = range(1, 9)  # bits that it can have
    strength: Tensor
    bits_buffer: Tensor
    initialised: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.uses = 1
        self._seen: list[Tensor] = []
        self.register_buffer("strength", torch.zeros(()))
        self.register_buffer("bits_buffer", torch.tensor(bits, dtype=torch.int32))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    def bits(self) -> int:
        """Bits of the quantised values."""
        return int(self.bits_buffer)

    def set_bits(self, bits: int) -> None:
        """Change the bits (PNQ: 8, then 4); scales are set anew from the next batch. Raises ConfigError beyond `widths`."""
        if bits != self.bits:
            if bits not in self.widths:
                found = f"{self.widths[0]} to {self.widths[-1]}" if len(self.widths) > 1 else "1, since it is a sign"
                raise ConfigError(f"a {type(self).__name__} cannot have {bits} bits, only {found}")
            self.bits_buffer.fill_(bits)
            self.initialised.fill_(False)
            self._seen = []

    def set_strength(self, strength: float) -> None:
        """0 is float, 1 is quantised."""
        self.strength.fill_(strength)

    def sample(self, x: Tensor) -> Tensor:
        """What `initialise` has to know of x."""
        return x

    def initialise(self, seen: list[Tensor]) -> None:
        """Set scales from samples of the first tensors met with strength above 0. Nothing to do by default."""

    def quantise(self, x: Tensor, strength: float, pad: int) -> Tensor:
        raise AssertionError("subclasses define quantise")

    def float_value(self, x: Tensor) -> Tensor:
        """What x becomes at strength 0."""
        return x

    def pad_value(self) -> float:
        """What a convolution pads the quantised map with."""
        return 0.0

    def forward(self, x: Tensor, pad: int = 0) -> Tensor:
        """The map; in a border of `pad` pixels of `pad_value()`, where that is not 0."""
        strength = float(self.strength)
        if strength == 0:
            return self.float_value(x)
        if not bool(self.initialised):
            with torch.no_grad():
                self._seen.append(self.sample(x.detach()))
                self.initialise(self._seen)
            if len(self._seen) == self.uses:
                self._seen = []
                self.initialised.fill_(True)
        return self.quantise(x, strength, pad)
