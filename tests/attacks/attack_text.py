"""Headers that are not the JSON that the format allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attack_base import Attack

from mpqyolo.format.writer import assemble


def textual(header: dict[str, Any], data: bytes) -> Iterator[Attack]:
    """Headers that are not the JSON the format allows."""
    text = json.dumps(header, separators=(",", ":"))

    def replaced(name: str, fault: str, old: str, new: str | bytes) -> Attack:
        assert old in text, old
        raw = new if isinstance(new, bytes) else new.encode()
        return Attack(name, assemble(text.encode().replace(old.encode(), raw, 1), data), fault)

    for number in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x10", "01", "+1", ".5", "1.", "1e", "--1", "nan", "1_0"):
        yield replaced(f"number {number}", "JSON|finite|scale", '"scale":0.125', f'"scale":{number}')
    for number in ("1e400", "NaN", str(2**63), str(-(2**63)), "9" * 5000, "-" + "9" * 5000):
        yield replaced(f"card number {number[:24]}", "JSON|finite|64 bits", '"name":"base"', f'"name":{number}')
    for number in ("3e0", "3.0", "30e-1", "-3", "3" * 30):
        yield replaced(f"kernel {number}", "integer|64 bits|1..7", '"kernel":3', f'"kernel":{number}')
    yield replaced("duplicate key", "twice", '"kernel":3', '"kernel":3,"kernel":3')
    yield replaced("duplicate key, escaped", "twice", '"kernel":3', '"kernel":3,"\\u006bernel":3')
    many = ",".join(f'"k{i}":0' for i in range(32_000))
    yield replaced("duplicate key behind many", "twice", '"name":"base"', f'"name":"base",{many},"k31999":1')
    yield replaced("duplicate key on top", "twice", '{"graph"', '{"card":{},"graph"')
    yield replaced("duplicate key in the card", "twice", '"name":"base"', '"name":"base","name":"base"')
    for depth in (15, 100, 5000, 200_000):
        yield replaced(f"nesting {depth}", "nesting", '"name":"base"', f'"name":{"[" * depth}{"]" * depth}')
        yield replaced(f"nesting of objects {depth}", "nesting", '"name":"base"', '"name":' + '{"a":' * depth + "1" + "}" * depth)
        yield replaced(
            f"nesting under an unknown key {depth}",
            "nesting",
            '{"graph"',
            f'{{"new":{"[" * (depth + 1)}{"]" * (depth + 1)},"graph"',
        )
    yield replaced("open brackets only", "nesting|JSON", '"name":"base"', '"name":' + "[" * 100_000)
    bad_bytes = {"latin-1": b"\xe9", "overlong": b"\xc0\x80", "surrogate bytes": b"\xed\xa0\x80", "cut": b"\xe2\x82"}
    bad_bytes |= {"beyond Unicode": b"\xf4\x90\x80\x80", "lone continuation": b"\x80", "0xff": b"\xff"}
    for name, raw in bad_bytes.items():
        yield replaced(f"not UTF-8: {name}", "UTF-8", '"name":"base"', b'"name":"' + raw + b'"')
        yield replaced(f"class not UTF-8: {name}", "UTF-8", '["a"', b'["' + raw + b'"')
    for name, value in (
        ("lone surrogate", "\\ud800"),
        ("low surrogate first", "\\udc00\\ud800"),
        ("surrogate and letter", "\\ud800x"),
    ):
        yield replaced(name, "surrogate", '"name":"base"', f'"name":"{value}"')
        yield replaced(f"class with {name}", "surrogate", '["a"', f'["{value}"')
    bad_values = {
        "line break in a string": '"a\nb"',
        "zero byte in a string": '"a\0b"',
        "unknown escape": r'"\x41"',
        "short escape": r'"\u12"',
        "open string": '"abc',
        "single quotes": "'abc'",
        "trailing comma": "[1,]",
        "comment": "1/*x*/",
        "bare word": "undefined",
    }
    for name, value in bad_values.items():
        yield replaced(name, "JSON", '"name":"base"', f'"name":{value}')
    yield replaced("escaped zero in a name", "control", '["a"', '["\\u0000"')
    yield replaced("too many values", "more than 1048576 values", '"name":"base"', f'"name":[{"0," * (1 << 20)}0]')
    yield replaced("too many empty objects", "more than 1048576 values", '"name":"base"', f'"name":[{"{}," * (1 << 20)}0]')
    yield Attack("byte order mark", assemble(b"\xef\xbb\xbf" + text.encode(), data), "JSON")
    yield Attack("zeros inside the header", assemble(text.encode() + b"\0", data), "JSON")
    yield Attack("text behind the JSON", assemble(text.encode() + b"{}", data), "JSON")
    yield Attack("half a header", assemble(text.encode()[: len(text) // 2], data), "JSON")
    for raw in (b"[]", b"{}", b"0x", b"12", b'""', b"null", b"  "):
        yield Attack(f"header {raw!r}", assemble(raw, data), "header|object")
