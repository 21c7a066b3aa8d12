"""The layout of a `.mpqy` file, version 1 (docs/format.md): numbers and limits, once.

0 magic · 8 u32 version · 12 u32 flags · 16 u64 header_length · 24 u64 data_offset · 32 u64 data_length
40 SHA-256 of bytes 128..end · 72 zeros · 128 JSON · zeros up to data_offset · constants
"""

from __future__ import annotations

import struct

MAGIC = b"MPQY\r\n\x1a\n"
VERSION = 1
PREFIX = struct.Struct("<8sIIQQQ32s56s")
PREFIX_BYTES = 128
ALIGNMENT = 64

MAX_HEADER_BYTES = 16 << 20
MAX_DATA_BYTES = 1 << 30
MAX_NESTING = 16
MAX_VALUES = 1 << 20  # in the JSON text, keys not counted
MAX_ITEMS = 4096  # tensors, constants, nodes
MAX_CHANNELS = 4096
MAX_EDGE = 8192  # height or width
MAX_ELEMENTS = 1 << 28  # of a tensor or constant
MAX_CLASSES = 1024
MAX_NAME_BYTES = 256
MAX_LEVELS = 8
MIN_STRIDE, MAX_STRIDE = 2, 128
MAX_FRACTION = 15  # an s16 map counts in 2^-fraction
WITH = ("slope", "post", "gain")  # constants of a conv that the header lists; all others follow from the rest

assert PREFIX.size == PREFIX_BYTES


def align(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
