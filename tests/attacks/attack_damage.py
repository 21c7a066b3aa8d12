"""Truncated files, flipped bits, wrong prefixes; the checksum is not mended."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attack_base import Attack

from mpqyolo.format.layout import PREFIX_BYTES


def damaged(good: bytes) -> Iterator[Attack]:
    """Attacks on the bytes of a good file."""
    start = struct.unpack_from("<Q", good, 24)[0]
    for size in (
        0,
        1,
        7,
        8,
        40,
        PREFIX_BYTES - 1,
        PREFIX_BYTES,
        PREFIX_BYTES + 1,
        start - 1,
        start,
        len(good) - 64,
        len(good) - 1,
    ):
        yield Attack(f"truncated to {size}", good[:size], r"has \d+ bytes|cannot be read")
    yield Attack("tail", good + bytes(64), "has a tail")
    yield Attack("text mode", good.replace(b"\r\n", b"\n", 1), "magic")
    for bit in [*range(0, 128 * 8, 29), *range(128 * 8, len(good) * 8, len(good) // 2)]:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        yield Attack(f"bit {bit} flipped", bytes(flipped), r".")
    for name, offset, fault in (
        ("header_length", 16, "header_length|data_offset"),
        ("data_offset", 24, "data_offset"),
        ("data_length", 32, "data_length|truncated"),
    ):
        for value in (0, 1, 63, 64, 2**31, 2**32, 2**63, 2**64 - 1, 2**64 - 64, 2**64 - 128):
            yield Attack(f"{name} {value}", good[:offset] + struct.pack("<Q", value) + good[offset + 8 :], fault)
    yield Attack("version 2", good[:8] + struct.pack("<I", 2) + good[12:], "version 2")
    yield Attack("flags", good[:12] + struct.pack("<I", 1) + good[16:], "flags")
    yield Attack("checksum of zeros", good[:40] + bytes(32) + good[72:], "checksum")
