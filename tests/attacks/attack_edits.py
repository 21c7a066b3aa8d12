"""One edit of the header or the constants, with a right checksum: the rule itself must refuse it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from attack_base import Attack

from mpqyolo.format.writer import assemble

HUGE = (2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**40)


def structured(header: dict[str, Any], data: bytes) -> Iterator[Attack]:
    """One edit of the header or the constants, with a right checksum."""
    tensor = {t["name"]: i for i, t in enumerate(header["graph"]["tensors"])}
    constant = {c["name"]: i for i, c in enumerate(header["graph"]["constants"])}
    node = {n["name"]: i for i, n in enumerate(header["graph"]["nodes"])}

    def edited(name: str, fault: str, *edits: tuple[tuple[Any, ...], Any]) -> Attack:
        """Sets values at paths of the header; a callable value edits the object at the path in place."""
        changed = copy.deepcopy(header)
        for path, value in edits:
            place = changed
            for key in path[:-1]:
                place = place[key]
            if callable(value):
                value(place[path[-1]])
            else:
                place[path[-1]] = value
        return Attack(name, assemble(changed, data), fault)

    def node_at(name: str, *path: Any) -> tuple[Any, ...]:
        return ("graph", "nodes", node[name], *path)

    def tensor_at(name: str, *path: Any) -> tuple[Any, ...]:
        return ("graph", "tensors", tensor[name], *path)

    def constant_at(name: str, *path: Any) -> tuple[Any, ...]:
        return ("graph", "constants", constant[name], *path)

    wrong: tuple[Any, ...] = (None, True, "1", 1.0, -1, [], {}, 0.5, *HUGE)
    numbers: dict[str, tuple[Any, ...]] = {
        "tensor index": node_at("body", "inputs", 0),
        "output index": node_at("body", "outputs", 0),
        "constant index": node_at("body", "constants", "weight"),
        "graph input": ("graph", "input"),
        "graph output": ("graph", "outputs", 0),
        "tensor channels": tensor_at("stem.s16", "shape", 0),
        "tensor height": tensor_at("stem.s16", "shape", 1),
        "constant size": constant_at("stem.bias", "shape", 0),
        "constant offset": constant_at("body.weight", "offset"),
        "constant bytes": constant_at("body.weight", "bytes"),
        "kernel": node_at("body", "attributes", "kernel"),
        "stride": node_at("body", "attributes", "stride"),
        "pad": node_at("body", "attributes", "pad"),
        "fraction": node_at("body", "attributes", "fraction"),
        "residual_last": node_at("body", "attributes", "residual_last"),
        "pool kernel": node_at("most", "attributes", "kernel"),
        "level stride": ("decode", "levels", 0, "stride"),
        "level logit": ("decode", "levels", 0, "logit"),
        "policy bits": ("policy", "bits", "neck", 0),
    }
    for name, path in numbers.items():
        for value in wrong:
            yield edited(f"{name} {value!r}", ".", (path, value))
    for value in (*(v for v in wrong if v != -1), -16, 17, -(2**31), -(2**63)):
        yield edited(f"shift {value!r}", ".", (node_at("body", "attributes", "shift"), value))
    for value in (None, True, "1", 0, -1, -0.0, [], 1e-400, *HUGE[-1:]):
        yield edited(f"scale {value!r}", "scale|64 bits", (tensor_at("stem.s16", "scale"), value))
        yield edited(f"iou {value!r}", "iou|64 bits", (("decode", "iou"), value))
    yield edited("iou 1.5", "iou", (("decode", "iou"), 1.5))

    # Objects and lists that are something else, lack a key, or have one more.
    objects: list[tuple[Any, ...]] = [("graph",), ("decode",), ("decode", "levels", 0), ("policy",), ("policy", "bits")]
    objects += [node_at("body"), tensor_at("image"), constant_at("stem.bias")]
    lists: list[tuple[Any, ...]] = [("graph", "tensors"), ("graph", "nodes"), ("graph", "constants"), ("graph", "outputs")]
    lists += [("decode", "levels"), ("classes",), node_at("body", "inputs"), tensor_at("image", "shape")]
    lists += [node_at("body", "attributes", "outputs")]
    maps: list[tuple[Any, ...]] = [("card",), node_at("body", "constants"), node_at("body", "attributes")]
    for path in (*objects, *lists, *maps):
        for value in (None, 3, "x", {"x": 3} if path in lists else [3], [[]]):
            yield edited(f"{'.'.join(map(str, path))} is {value!r}", ".", (path, value))
    for path in objects:
        value = header
        for key in path:
            value = value[key]
        for key in value:
            yield edited(f"no {'.'.join(map(str, (*path, key)))}", "lacks", (path, lambda o, k=key: o.pop(k)))
        yield edited(f"unknown key in {'.'.join(map(str, path))}", "unknown key", ((*path, "surprise"), 1))
    for key in header:
        yield Attack(f"no {key}", assemble({k: v for k, v in header.items() if k != key}, data), "lacks")

    yield edited("unknown attribute", "unknown attribute", (node_at("body", "attributes", "dilation"), 1))
    yield edited("unknown role", "unknown constant role", (node_at("body", "constants", "scale"), 0))
    yield edited("unknown operator", "unknown operator", (node_at("pool", "op"), "softmax"))
    yield edited("operator with a line break", "unknown operator", (node_at("pool", "op"), "avg\npool2"))
    yield edited("unknown tensor type", "unknown dtype", (tensor_at("pool", "dtype"), "s8"))
    yield edited("unknown constant type", "unknown dtype", (constant_at("stem.bias", "dtype"), "f32"))
    yield edited("unknown decode", "unknown kind", (("decode", "kind"), "anchors"))
    yield edited("tensor type of another", "must be s16", (tensor_at("pool", "dtype"), "u4"))
    yield edited("weight of another type", "bytes is", (constant_at("body.weight", "dtype"), "w4"))

    # The graph as a whole.
    yield edited("cycle", "before it is written", (node_at("body", "inputs", 1), tensor["body.s16"]))
    yield edited("node that reads itself", "before it is written", (node_at("most", "inputs", 0), tensor["most"]))
    yield edited("nodes out of order", "before it is written", (("graph", "nodes"), lambda nodes: nodes.reverse()))
    yield edited("tensor written twice", "written twice|has 2 outputs", (node_at("again", "outputs", 0), tensor["body.u4"]))
    yield edited("input written", "written twice|must be", (node_at("pool", "outputs", 0), tensor["image"]))
    yield edited("one output twice", "written twice", (node_at("body", "outputs"), [tensor["body.u4"], tensor["body.u4"]]))
    yield edited(
        "tensor never written", "written by no node", (("graph", "tensors"), lambda t: t.append({**t[1], "name": "lost"}))
    )
    yield edited("output missing", "read by no node|not an output", (("graph", "outputs"), lambda o: o.pop()))
    yield edited("output twice", "twice", (("graph", "outputs"), lambda o: o.append(o[0])))
    yield edited("no outputs", "has 0 items", (("graph", "outputs"), []))
    yield edited("no nodes", "has 0 items", (("graph", "nodes"), []))
    yield edited("no tensors", "has 0 items", (("graph", "tensors"), []))
    yield edited("node left out", "written by no node|before it is written", (("graph", "nodes"), lambda n: n.pop()))
    yield edited("too many inputs", "has 17 items", (node_at("both", "inputs"), [tensor["body.u4"]] * 17))
    yield edited("no inputs", "has 0 items", (node_at("both", "inputs"), []))
    yield edited("too many tensors", "4096|has 4097 items", (("graph", "tensors"), lambda t: t.extend([t[1]] * (4097 - len(t)))))
    yield edited("too many nodes", "has 4097 items", (("graph", "nodes"), lambda n: n.extend([n[1]] * (4097 - len(n)))))
    yield edited("constant used by no node", "used by no node", (node_at("body", "constants"), lambda c: c.pop("post")))
    yield edited("input of another type", "u8", (("graph", "input"), tensor["stem.b1"]))

    # Shapes.
    for shape in (
        [7, 8, 9],
        [8, 8, 8],
        [7, 4, 16],
        [0, 8, 8],
        [7, 8],
        [7, 8, 8, 1],
        [4097, 8, 8],
        [7, 8193, 1],
        [4096, 8192, 8192],
        [],
    ):
        yield edited(f"shape {shape}", "shape|must be|channels|items", (tensor_at("stem.s16", "shape"), shape))
    yield edited("input too large", "elements|must be", (tensor_at("image", "shape"), [3, 8192, 8192]))
    yield edited("concat of unequal scales", "scale", (tensor_at("most", "scale"), 0.25))
    count = len(data)
    for shape in ([7, 3, 3, 8], [0], [4096, 4096, 4096, 4096], [65536, 65536], [2**16] * 4, [1] * 5, [], [4096, 4096, 7, 7]):
        yield edited(f"constant shape {shape}", "bytes is|shape", (constant_at("body.weight", "shape"), shape))
    yield edited("transposed weight", "weight has shape", (constant_at("body.weight", "shape"), [3, 3, 7, 7]))
    yield edited("bias as matrix", "has shape", (constant_at("stem.bias", "shape"), [7, 1]))

    # Offsets.
    second = header["graph"]["constants"][1]
    for name, value in (
        ("overlap", 0),
        ("unaligned", second["offset"] + 1),
        ("hole", second["offset"] + 64),
        ("behind the end", count),
    ):
        yield edited(f"offset: {name}", "offset is", (("graph", "constants", 1, "offset"), value))
    yield edited("constants swapped", "offset is", (("graph", "constants"), lambda c: c.reverse()))
    yield edited("bytes short", "bytes is", (constant_at("body.weight", "bytes"), 1))
    yield Attack("data too short", assemble(header, data[:-64]), "behind the data section|constants need")
    yield Attack("data too long", assemble(header, data + bytes(64)), "constants need")
    yield Attack("no data", assemble(header, b""), "behind the data section")
    yield Attack("data of 63 bytes", assemble(header, data[:63]), "data_length")

    # Values.
    def valued(name: str, fault: str, constant_name: str, raw: bytes, at: int = 0) -> Attack:
        offset = header["graph"]["constants"][constant[constant_name]]["offset"] + at
        return Attack(name, assemble(header, data[:offset] + raw + data[offset + len(raw) :]), fault)

    yield valued("weight -8", "holds -8", "logit2.weight", b"\x08")
    yield valued("weight -8, high nibble", "holds -8", "logit2.weight", b"\x80")
    yield valued("weight -128", "holds -128", "stem.weight", b"\x80", 5)
    for role in ("multiplier", "slope", "gain"):
        yield valued(f"{role} -32768", "holds -32768", f"body.{role}", b"\x00\x80", 2)
    yield valued("requantise multiplier -32768", "holds -32768", "again.multiplier", b"\x00\x80")
    size = next(c for c in header["graph"]["constants"] if c["name"] == "body.weight")["bytes"]
    yield valued("unused bits", "unused bits", "body.weight", b"\xff", size - 1)
    yield valued("dirt in a gap", "gap", "body.weight", b"\x01", size)
    yield Attack("dirt at the end", assemble(header, data[:-1] + b"\x01"), "must be zero")

    # Names, classes, levels, policy.
    for name in ("", "a\nb", "a\x00b", "\x7f", "x" * 257, "é" * 129, 7, None):
        yield edited(f"tensor name {name!r}"[:60], "name", (tensor_at("pool", "name"), name))
        yield edited(f"node name {name!r}"[:60], "name", (node_at("pool", "name"), name))
        yield edited(f"constant name {name!r}"[:60], "name", (constant_at("stem.bias", "name"), name))
        yield edited(f"class name {name!r}"[:60], "name", (("classes", 0), name))
        yield edited(f"policy name {name!r}"[:60], "name", (("policy", "name"), name))
    yield edited("tensor name twice", "twice", (tensor_at("pool", "name"), "image"))
    yield edited("constant name twice", "twice", (constant_at("stem.bias", "name"), "body.weight"))
    yield edited("node name twice", "twice", (node_at("pool", "name"), "body"))
    yield edited("empty list of classes", "has 0 items", (("classes",), []))
    yield edited("one class more", "must be s16", (("classes",), ["a", "b", "c", "d"]))
    yield edited("too many classes", "has 1025 items", (("classes",), ["a"] * 1025))
    yield edited("levels swapped", "ascend", (("decode", "levels"), lambda v: v.reverse()))
    yield edited("level twice", "ascend", (("decode", "levels", 1), header["decode"]["levels"][0]))
    yield edited("nine levels", "has 9 items", (("decode", "levels"), [header["decode"]["levels"][0]] * 9))
    yield edited("no levels", "has 0 items", (("decode", "levels"), []))
    for stride in (1, 3, 4, 32, 128, 256):
        yield edited(f"level of stride {stride}", "stride", (("decode", "levels", 1, "stride"), stride))
    yield edited(
        "distance as logit", "must be s16", (("decode", "levels", 0, "logit"), header["decode"]["levels"][0]["distance"])
    )
    yield edited("level that is no output", "not an output", (("decode", "levels", 0, "distance"), tensor["stem.s16"]))
    yield edited("region left out", "lacks", (("policy", "bits"), lambda b: b.pop("neck")))
    yield edited("bits of three", "two integers", (("policy", "bits", "neck"), [4, 4, 4]))
    yield edited("outputs repeated", "each once|has 2 outputs", (node_at("body", "attributes", "outputs"), ["u4", "u4"]))
    yield edited("outputs swapped", "must be", (node_at("body", "attributes", "outputs"), ["s16", "u4"]))
    yield edited(
        "threshold without bits", "exactly with", (node_at("body", "constants", "threshold"), constant["bits.threshold"])
    )
    yield edited("fraction missing", "exactly with", (node_at("body", "attributes"), lambda a: a.pop("fraction")))
    yield edited("residual_last missing", "exactly with", (node_at("body", "attributes"), lambda a: a.pop("residual_last")))
    yield edited("gain without residual", "exactly with|gain", (node_at("body", "inputs"), lambda i: i.pop()))
