"""Strict JSON: UTF-8, no duplicate keys, no NaN, bounded numbers, nesting and size; typed access with a path in every fault."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection
from typing import Any

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.layout import MAX_NESTING, MAX_VALUES

MAX_INTEGER = 2**63 - 1


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise FileFormatError(f"header: the integer {text[:24]} does not fit into 64 bits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise FileFormatError(f"header: the number {text[:24]} is not finite")
    return value


def _no_constant(text: str) -> None:
    raise FileFormatError(f"header: {text} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise FileFormatError(f"header: the key {twice[:40]!r} comes twice in one object")
    return result


def check_json(value: Any, where: str, depth: int = 1) -> None:
    """Refuses more than MAX_NESTING levels (value itself is level `depth`) or MAX_VALUES values, and what JSON cannot hold."""
    level, count = [value], 1
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, (dict, list, tuple)):
                if depth > MAX_NESTING:
                    raise FileFormatError(f"{where}: nesting is deeper than {MAX_NESTING}")
                below.extend(item.values() if isinstance(item, dict) else item)
                count += len(item)
                if count > MAX_VALUES:
                    raise FileFormatError(f"{where}: more than {MAX_VALUES} values")
                if isinstance(item, dict):
                    below.extend(item)
                    if not all(isinstance(key, str) for key in item):
                        raise FileFormatError(f"{where}: a key is not a string")
            elif isinstance(item, str):
                if not item.isascii() and any("\ud800" <= c <= "\udfff" for c in item):
                    raise FileFormatError(f"{where}: the string {item[:40]!r} holds a lone surrogate")
            elif isinstance(item, float) and not math.isfinite(item):
                raise FileFormatError(f"{where}: {item} is not a JSON number")
            elif type(item) is int and abs(item) > MAX_INTEGER:
                raise FileFormatError(f"{where}: an integer does not fit into 64 bits")
            elif item is not None and not isinstance(item, (bool, int, float)):
                raise FileFormatError(f"{where}: {type(item).__name__} cannot be written as JSON")
        level, depth = below, depth + 1


def parse(data: bytes) -> Any:
    """The JSON value in `data`. Raises FileFormatError, one line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise FileFormatError(f"header: not UTF-8 at byte {fault.start}") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_int=_integer, parse_float=_real, parse_constant=_no_constant
        )
    except json.JSONDecodeError as fault:
        raise FileFormatError(f"header: not JSON at byte {len(text[: fault.pos].encode())}: {fault.msg}") from None
    except RecursionError:
        raise FileFormatError(f"header: nesting is deeper than {MAX_NESTING}") from None
    check_json(value, "header")
    return value


def obj(value: Any, where: str, keys: Collection[str], optional: Collection[str] = (), more: bool = False) -> dict[str, Any]:
    """An object with these keys, perhaps the optional ones, and no others unless `more`."""
    if not isinstance(value, dict):
        raise FileFormatError(f"{where} must be an object")
    for key in keys:
        if key not in value:
            raise FileFormatError(f"{where} lacks the key '{key}'")
    for key in value:
        if not more and key not in keys and key not in optional:
            raise FileFormatError(f"{where} has the unknown key {key[:40]!r}")
    return value


def array(value: Any, where: str, low: int, high: int) -> list[Any]:
    """A list of low..high items."""
    if not isinstance(value, list):
        raise FileFormatError(f"{where} must be a list")
    if not low <= len(value) <= high:
        raise FileFormatError(f"{where} has {len(value)} items, must have {low}..{high}")
    return value


def integer(value: Any, where: str, low: int, high: int) -> int:
    """An integer in low..high, written without fraction or exponent."""
    if type(value) is not int or not low <= value <= high:
        shown = value if type(value) in (int, float) else type(value).__name__
        raise FileFormatError(f"{where} is {shown}, must be an integer {low}..{high}")
    return value


def real(value: Any, where: str) -> float:
    """A number, as float."""
    if type(value) not in (int, float):
        raise FileFormatError(f"{where} must be a number")
    return float(value)


def string(value: Any, where: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise FileFormatError(f"{where} must be a string")
    return value
