"""One edit of the header or the constants, with a right checksum: the rule itself must refuse it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from attack_base import Attack, places

from mpqyolo.format.writer import assemble

HUGE = (2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**40)
WRONG: tuple[Any, ...] = (None, True, "1", 1.0, -1, [], {}, 0.5, *HUGE)
SHIFTED = "gap|unused bits|behind the data|holds|constants need"  # what constants at wrong places look like
OPERATOR, NAME, INPUTS, DETAILS = range(4)  # items of a node

Path = tuple[Any, ...]


class Edits:
    """Makes attacks out of one good header and its data."""

    def __init__(self, header: dict[str, Any], data: bytes) -> None:
        self.header, self.data = header, data
        self.node = {node[NAME]: i for i, node in enumerate(header["graph"]["nodes"])}

    def at(self, name: str, *path: Any) -> Path:
        """The path to a node or into it."""
        return ("graph", "nodes", self.node[name], *path)

    def inside(self, name: str, *path: Any) -> Path:
        """The path into a node's details."""
        return self.at(name, DETAILS, *path)

    def edited(self, name: str, fault: str, *edits: tuple[Path, Any], data: bytes | None = None) -> Attack:
        """Sets values at paths of the header; a callable value edits the object at the path in place."""
        changed = copy.deepcopy(self.header)
        for path, value in edits:
            place = changed
            for key in path[:-1]:
                place = place[key]
            if callable(value):
                value(place[path[-1]])
            else:
                place[path[-1]] = value
        return Attack(name, assemble(changed, self.data if data is None else data), fault)

    def added(self, name: str, fault: str, *nodes: list[Any], zeros: int = 0) -> Attack:
        """More nodes at the end; `zeros` bytes of constants for them."""
        more = bytes(-(-zeros // 64) * 64)
        return self.edited(name, fault, (("graph", "nodes"), lambda n: n.extend(nodes)), data=self.data + more)


def structured(header: dict[str, Any], data: bytes) -> Iterator[Attack]:
    """One edit of the header or the constants, with a right checksum."""
    edits = Edits(header, data)
    for make in (numbers, structure, operators, graphs, shapes, constants, names, levels, the_rest):
        yield from make(edits)


def numbers(edits: Edits) -> Iterator[Attack]:
    """Numbers that are none, or out of range."""
    edited, inside = edits.edited, edits.inside
    paths: dict[str, Path] = {
        "tensor index": edits.at("body", INPUTS, 0),
        "graph output": ("graph", "outputs", 0),
        "input height": ("graph", "input", 1),
        "input width": ("graph", "input", 2),
        "channels": inside("body", "channels"),
        "kernel": inside("body", "kernel"),
        "stride": inside("body", "stride"),
        "pad": inside("body", "pad"),
        "residual_last": inside("body", "residual_last"),
        "fraction of u4": inside("body", "out", 0, 1),
        "fraction of s16": inside("body", "out", 1, 1),
        "fraction of requantise": inside("again", "fraction"),
        "pool kernel": inside("most", "kernel"),
        "level distance": ("decode", "levels", 0, 0),
        "level logit": ("decode", "levels", 0, 1),
        "policy bits": ("policy", "bits", "neck", 0),
    }
    for name, path in paths.items():
        for value in WRONG:
            yield edited(f"{name} {value!r}", ".", (path, value))
    for value in (*(v for v in WRONG if v != -1), -16, 17, -(2**31), -(2**63)):
        yield edited(f"shift {value!r}", ".", (inside("body", "shift"), value))
    for name, value in (("kernel", 0), ("kernel", 8), ("stride", 0), ("stride", 3), ("pad", 3), ("residual_last", 2)):
        yield edited(f"{name} {value}", "must be", (inside("body", name), value))
    for name, path, value in (
        ("channels 0", inside("body", "channels"), 0),
        ("channels 4097", inside("body", "channels"), 4097),
        ("fraction 15 of u4", inside("body", "out", 0, 1), 15),
        ("fraction 16 of s16", inside("body", "out", 1, 1), 16),
        ("fraction 15 of requantise", inside("again", "fraction"), 15),
        ("even pool kernel", inside("most", "kernel"), 4),
        ("pool kernel 15", inside("most", "kernel"), 15),
    ):
        yield edited(name, "must be", (path, value))
    for value in (None, True, "1", 0, -1, -0.0, [], 1e-400, *HUGE[-1:]):
        yield edited(f"scale {value!r}", "scale|64 bits", (inside("again", "scale"), value))
        yield edited(f"scale of a conv {value!r}", "scale|64 bits", (inside("low", "out", 0, 2), value))
        yield edited(f"iou {value!r}", "iou|64 bits", (("decode", "iou"), value))
    yield edited("iou 1.5", "iou", (("decode", "iou"), 1.5))


def structure(edits: Edits) -> Iterator[Attack]:
    """Objects and lists that are something else, lack an item, or have one more."""
    edited, inside, header = edits.edited, edits.inside, edits.header
    required: dict[Path, tuple[str, ...]] = {
        ("graph",): ("input", "nodes", "outputs"),
        ("decode",): ("kind", "iou", "levels"),
        ("policy",): ("name", "bits"),
        ("policy", "bits"): ("stem", "backbone", "neck", "predict"),
        inside("body"): ("weight", "channels", "kernel", "out"),
        inside("again"): ("fraction", "scale"),
        inside("most"): ("kernel",),
        inside("pool"): (),
    }
    lists: list[Path] = [("graph", "input"), ("graph", "nodes"), ("graph", "outputs"), ("classes",)]
    lists += [("decode", "levels"), ("decode", "levels", 0), edits.at("body"), edits.at("body", INPUTS)]
    lists += [inside("body", "out"), inside("body", "out", 0), inside("body", "with"), ("policy", "bits", "neck")]
    for path in (*required, *lists, ("card",)):
        for value in (None, 3, "x", {"x": 3} if path in lists else [3], [[]]):
            yield edited(f"{'.'.join(map(str, path))} is {value!r}", ".", (path, value))
    for path, keys in required.items():
        where = ".".join(map(str, path))
        for key in keys:
            yield edited(f"no {where}.{key}", "lacks", (path, lambda o, k=key: o.pop(k)))
        yield edited(f"unknown key in {where}", "unknown key", ((*path, "surprise"), 1))
        yield edited(f"empty key in {where}", "unknown key", ((*path, ""), 1))
    for key in header:
        yield Attack(f"no {key}", assemble({k: v for k, v in header.items() if k != key}, edits.data), "lacks")
    fixed: dict[str, Path] = {"graph input": ("graph", "input"), "node": edits.at("body"), "level": ("decode", "levels", 0)}
    fixed |= {"bits of a region": ("policy", "bits", "neck")}
    for name, path in fixed.items():
        yield edited(f"{name}: one item less", "items|two integers", (path, lambda v: v.pop()))
        yield edited(f"{name}: one item more", "items|two integers", (path, lambda v: v.append(v[-1])))
    for row in (["s16"], ["u4"], ["u4", 9], ["b1", "x", "y"], ["s16", 8, "x", "y"], ["u4", 9, 0.125, "x", "y"]):
        yield edited(f"output {row}", "items", (inside("body", "out", 0), row))
    for row in (["s16", "x"], ["u4", 0.125, 9], ["u4", 9, "x"], ["b1", True], [None], [4], [["b1"]], [{}, 8], ["b1", ["x"]]):
        yield edited(f"output {row}", "output", (inside("body", "out", 0), row))


def operators(edits: Edits) -> Iterator[Attack]:
    """Operators, types and roles that there are not, or not here."""
    edited, inside, at = edits.edited, edits.inside, edits.at
    for value in ("softmax", "avg\npool2", "", "CONV", "conv ", 1, None, ["conv"]):
        yield edited(f"operator {value!r}", "operator", (at("pool", OPERATOR), value))
    for value in ("s8", "u8", "w1", "", "S16", None, 16):
        yield edited(f"output of type {value!r}", "output", (inside("body", "out", 0, 0), value))
    for value in ("w2", "i16", "f32", "", "W1", None, 1):
        yield edited(f"weights of type {value!r}", "weight", (inside("body", "weight"), value))
    yield edited("output type twice", "twice", (inside("body", "out", 1), ["u4", 9, 0.125]))
    yield edited("four outputs", "has 4 items", (inside("body", "out"), [["s16", 8], ["b1"], ["u4", 9, 0.125], ["b1"]]))
    yield edited("no outputs of a conv", "has 0 items", (inside("body", "out"), []))
    for value in ("scale", "weight", "multiplier", "bias", "threshold", "", "Slope", None, 3, ["slope"]):
        yield edited(f"with {value!r}", "with", (inside("body", "with", 0), value))
    yield edited("role twice", "twice", (inside("body", "with"), ["slope", "slope"]))
    yield edited("four roles", "has 4 items", (inside("body", "with"), ["slope", "post", "gain", "slope"]))
    yield edited("gain without residual", "'gain' needs", (inside("low", "with"), ["gain"]))
    yield edited("residual_last without residual", "'residual_last' needs", (inside("low", "residual_last"), 0))
    both = (inside("body"), lambda d: d.pop("residual_last"))
    yield edited("gain, residual removed", "'gain' needs", (at("body", INPUTS), [2]), both)
    for name, source in (("pool", "most"), ("most", "again"), ("bits", "pool"), ("up", "bits")):
        moved = edits.header["graph"]["nodes"][edits.node[source]]
        yield edited(f"{name} with the details of {source}", ".", (inside(name), moved[DETAILS] or {"kernel": 3}))
    yield edited("conv without details", "lacks", (inside("body"), {}))
    for role in ("threshold", "multiplier", "constants", "offset", "shape", "bytes", "scale", "fraction", "outputs"):
        yield edited(f"detail '{role}'", "unknown key", (inside("body", role), 1))

    # Maps of two bits.
    for value in (0, -1, 32768, True, "1", None, 0.5):
        yield edited(f"step {value!r}", "step", (inside("bits", "step"), value))
    for value in (0, -1, 32768):
        yield edited(f"step {value!r} of a conv", "step", (inside("body", "out", 0), ["b1", value]))
    yield edited("step of 7 channels", "multiple of 4", (inside("bits", "step"), 9))
    yield edited("step of a conv of 7 channels", "multiple of 4", (inside("body", "out", 0), ["b1", 9]))
    for value in (0, 1, 3, True, "2", None):
        yield edited(f"planes {value!r}", "planes", (inside("body", "planes"), value))
    yield edited("planes of codes", f"{SHIFTED}|planes", (inside("low", "planes"), 2))
    yield edited("planes of 7 channels", f"{SHIFTED}|planes", (inside("body", "planes"), 2))

    # What an operator does not read.
    yield edited("conv of a stream", "must be u8 or u4 or b1", (at("low", INPUTS), [5]))
    yield edited("residual of codes", "must be s16", (at("low", INPUTS), [6, 7]))
    yield edited("threshold of codes", "must be s16", (at("bits", INPUTS), [4]))
    yield edited("requantise of bits", "must be s16 or u8", (at("again", INPUTS), [6]))
    yield edited("avgpool2 of bits", "must be s16", (at("pool", INPUTS), [2]))
    yield edited("maxpool of pixels", "must be u4 or s16 or b1", (at("most", INPUTS), [0]))
    yield edited("concat of unequal types", "one dtype", (at("both", INPUTS), [4, 5]))
    yield edited("concat of unequal sizes", "height or width", (at("both", INPUTS), [3, 1]))
    yield edited("concat of unequal scales", "scale", (inside("again", "scale"), 0.25))
    yield edited("concat of unequal fractions", "scale", (inside("body", "out", 1, 1), 7), (at("both", INPUTS), [3, 5]))


def graphs(edits: Edits) -> Iterator[Attack]:
    """The graph as a whole."""
    edited, at = edits.edited, edits.at
    nodes = edits.header["graph"]["nodes"]
    unwritten = "must be an integer 0.."
    yield edited("cycle", unwritten, (at("body", INPUTS, 1), 5))
    yield edited("node that reads itself", unwritten, (at("most", INPUTS, 0), 8))
    yield edited("node that reads the next", unwritten, (at("most", INPUTS, 0), 9))
    yield edited("tensor that nobody writes", unwritten, (at("most", INPUTS, 0), 16))
    yield edited("nodes out of order", unwritten, (("graph", "nodes"), lambda n: n.reverse()))
    yield edited("two nodes swapped", ".", (("graph", "nodes"), lambda n: n.insert(2, n.pop(1))))
    yield edited("node left out", ".", (("graph", "nodes"), lambda n: n.pop(4)))
    yield edited("last node left out", SHIFTED, (("graph", "nodes"), lambda n: n.pop()))
    yield edited("node twice", "twice", (("graph", "nodes"), lambda n: n.insert(1, n[1])))
    yield edited("output missing", "read by no node", (("graph", "outputs"), lambda o: o.pop()))
    yield edited("output twice", "twice", (("graph", "outputs"), lambda o: o.append(o[0])))
    yield edited("output that there is not", unwritten, (("graph", "outputs"), lambda o: o.append(16)))
    yield edited("no outputs", "has 0 items", (("graph", "outputs"), []))
    yield edited("4097 outputs", "has 4097 items", (("graph", "outputs"), [1] * 4097))
    yield edited("no nodes", "has 0 items", (("graph", "nodes"), []))
    yield edits.added("a node that nobody reads", "read by no node", ["upsample2", "lost", [0], {}])
    yield edited("too many inputs", "has 17 items", (at("both", INPUTS), [4] * 17))
    yield edited("one input of a concat", "has 1 items", (at("both", INPUTS), [4]))
    yield edited("no inputs", "has 0 items", (at("both", INPUTS), []))
    yield edited("three inputs of a conv", "has 3 items", (at("body", INPUTS), [2, 3, 3]))
    yield edited("two inputs of a pool", "has 2 items", (at("most", INPUTS), [7, 7]))
    joins = [["concat", f"join {i}", [0, 0], {}] for i in range(4097 - len(nodes))]
    yield edits.added("too many nodes", "has 4097 items", *joins)
    yield edits.added("too many tensors", "more than 4096 tensors", *joins[:-1])
    conv = {"weight": "w8", "channels": 1, "kernel": 1, "out": [["b1"]]}
    many = [["conv", f"conv {i}", [0], conv] for i in range(1025)]
    yield edits.added("too many constants", "4096", *many, zeros=64 * 4 * 1025)


def shapes(edits: Edits) -> Iterator[Attack]:
    """Sizes that an operator or a level cannot take, and what is too large."""
    edited, at = edits.edited, edits.at
    for size in ((0, 16), (16, 0), (8193, 16), (16, 8193), (14, 14), (18, 16), (16, 18), (15, 16), (16, 15), (1, 1), (17, 17)):
        yield edited(f"input of {size}", "must be|even|stride|size|does not", (("graph", "input"), ["image", *size]))
    for size in ((20, 20), (12, 16), (16, 20), (28, 28)):
        yield edited(f"levels of an input of {size}", "stride|must be|size|even", (("graph", "input"), ["image", *size]))
    yield edited("kernel larger than its map", "does not fit", (edits.inside("distance8", "kernel"), 7),
                 (edits.inside("distance8", "pad"), 0), data=edits.data + bytes(8192))  # fmt: skip
    yield edited("residual of another size", "residual has size", (at("body", INPUTS), [2, 1]))
    yield edited("channels that do not divide", "do not divide", (edits.inside("body", "channels"), 5), data=spread(edits))
    doubled = [["upsample2", "up 0", [0], {}]] + [["upsample2", f"up {i}", [15 + i], {}] for i in range(1, 9)]
    yield edits.added("a map of 16384", "at most 8192", *doubled, ["upsample2", "last", [24], {}])
    yield edits.added("2^28 elements and more", "2\\^28 elements", *doubled, ["concat", "last", [24, 24], {}])
    wide = [["concat", "wide 0", [0] * 16, {}], ["concat", "wide 1", [16] * 16, {}]]
    yield edits.added("more than 4096 channels", "channels, at most 4096", *wide, ["concat", "last", [17] * 6, {}])
    conv = {"weight": "w8", "channels": 1, "kernel": 7, "out": [["s16", 8]]}
    sums = (["concat", "wide 2", [17] * 5, {}], ["conv", "last", [18], conv])
    yield edits.added("a sum beyond 2^31", "stay below 2\\^31", *wide, *sums, zeros=7 * 7 * 768 * 5 + 64 * 2)
    huge = {**conv, "channels": 4096}
    yield edits.added("weights of 2^28 elements and more", "2\\^28 elements", *wide, sums[0], ["conv", "last", [18], huge])
    yield edits.added("weights of 154 MB that are not there", "behind the data", *wide, ["conv", "last", [17], huge])


def spread(edits: Edits) -> bytes:
    """Zeros enough for constants of any node at any place: the fault is in the header."""
    return bytes(8 * len(edits.data))


def constants(edits: Edits) -> Iterator[Attack]:
    """Constants: where they lie follows from the header, so one that says otherwise moves all that come after it."""
    edited, inside, at, data = edits.edited, edits.inside, edits.at, edits.data
    for name, other in (("stem", "w4"), ("stem", "w1"), ("body", "w4"), ("body", "w8"), ("low", "w8"), ("logit8", "w1")):
        yield edited(f"weights of {name} as {other}", SHIFTED, (inside(name, "weight"), other))
    for name, channels in (("low", 4), ("low", 9), ("low", 4096), ("stem", 14), ("distance2", 3), ("distance8", 8)):
        yield edited(f"{channels} channels of {name}", SHIFTED + "|must be|divide", (inside(name, "channels"), channels))
    for name, kernel in (("stem", 1), ("body", 1), ("body", 5), ("low", 7), ("logit8", 3)):
        yield edited(f"kernel {kernel} of {name}", SHIFTED, (inside(name, "kernel"), kernel))
    for role in ("slope", "post", "gain"):
        yield edited(f"{role} left out", SHIFTED, (inside("body", "with"), lambda v, r=role: v.remove(r)))
    for role in ("slope", "post"):
        for name in ("stem", "low", "logit8"):
            yield edited(f"{role} of {name} that is not there", SHIFTED, (inside(name, "with"), [role]))
    yield edited("bits more, without their threshold", SHIFTED, (inside("logit8", "out"), lambda v: v.append(["b1"])))
    yield edited("bits less, with their threshold", ".", (inside("stem", "out"), lambda v: v.pop()))
    yield edited("operator with a constant more", SHIFTED, (at("pool", OPERATOR), "threshold"))
    yield edited("operator with a constant less", ".", (at("bits", OPERATOR), "avgpool2"))

    header = edits.header
    yield Attack("data short by 64 bytes", assemble(header, data[:-64]), "behind the data section")
    yield Attack("data long by 64 bytes", assemble(header, data + bytes(64)), "constants need")
    yield Attack("data long by a megabyte", assemble(header, data + bytes(1 << 20)), "constants need")
    yield Attack("no data", assemble(header, b""), "behind the data section")
    for size in (1, 63, len(data) - 1, len(data) - 63):
        yield Attack(f"data of {size} bytes", assemble(header, data[:size]), "data_length")
    yield Attack("data long by a byte", assemble(header, data + bytes(1)), "data_length")
    yield Attack("data moved by a block", assemble(header, bytes(64) + data[:-64]), SHIFTED)
    yield Attack("constants without gaps", assemble(header, dense(edits)), SHIFTED)

    place = places()

    def valued(name: str, fault: str, constant: str, raw: bytes, by: int = 0) -> Attack:
        offset = place[constant][0] + by
        return Attack(name, assemble(header, data[:offset] + raw + data[offset + len(raw) :]), fault)

    yield valued("weight -8", "holds -8", "logit2.weight", b"\x08")
    yield valued("weight -8, high nibble", "holds -8", "logit2.weight", b"\x80")
    yield valued("weight -128", "holds -128", "stem.weight", b"\x80", 5)
    for role in ("multiplier", "slope", "gain"):
        yield valued(f"{role} -32768", "holds -32768", f"body.{role}", b"\x00\x80", 2)
    yield valued("requantise multiplier -32768", "holds -32768", "again.multiplier", b"\x00\x80")
    size = place["body.weight"][1]
    yield valued("unused bits", "unused bits", "body.weight", b"\xff", size - 1)
    yield valued(
        "one unused bit", "unused bits", "body.weight", bytes([data[place["body.weight"][0] + size - 1] | 0x80]), size - 1
    )
    for constant, (offset, length) in place.items():
        if length % 64:
            yield valued(f"dirt behind {constant}", "gap|must be zero", constant, b"\x01", length)
            end = -(-(offset + length) // 64) * 64
            yield valued(f"dirt at the end behind {constant}", "gap|must be zero", constant, b"\x80", end - offset - 1)


def dense(edits: Edits) -> bytes:
    packed = b"".join(edits.data[offset : offset + size] for offset, size in places().values())
    return packed + bytes(len(edits.data) - len(packed))


def names(edits: Edits) -> Iterator[Attack]:
    """Names that are none, too long, or there twice."""
    edited, at, inside = edits.edited, edits.at, edits.inside
    for name in ("", "a\nb", "a\x00b", "\x7f", "x" * 257, "é" * 129, 7, None, ["x"], True):
        yield edited(f"input name {name!r}"[:60], "name", (("graph", "input", 0), name))
        yield edited(f"node name {name!r}"[:60], "name", (at("pool", NAME), name))
        yield edited(f"output name {name!r}"[:60], "name", (inside("body", "out", 1), ["s16", 8, name]))
        yield edited(f"class name {name!r}"[:60], "name", (("classes", 0), name))
        yield edited(f"policy name {name!r}"[:60], "name", (("policy", "name"), name))
    yield edited("node named twice", "twice", (at("pool", NAME), "body"))
    yield edited("node named like the input", "twice", (at("pool", NAME), "image"))
    yield edited("input named like a node", "twice", (("graph", "input", 0), "pool"))
    yield edited("node named like a derived name", "twice", (at("pool", NAME), "stem.b1"))
    yield edited("output named like the input", "twice", (inside("body", "out", 1), ["s16", 8, "image"]))
    yield edited("output named like the one before", "twice", (inside("body", "out", 1), ["s16", 8, "body"]))
    yield edited("output named like a later node", "twice", (inside("body", "out", 1), ["s16", 8, "most"]))
    yield edited("derived name of 257 bytes", "257 bytes", (at("stem", NAME), "x" * 254))


def levels(edits: Edits) -> Iterator[Attack]:
    """Maps of predictions that are none."""
    edited, both = edits.edited, edits.header["decode"]["levels"]
    yield edited("levels swapped", "ascend", (("decode", "levels"), lambda v: v.reverse()))
    yield edited("level twice", "ascend", (("decode", "levels", 1), both[0]))
    yield edited("nine levels", "has 9 items", (("decode", "levels"), [both[0]] * 9))
    yield edited("no levels", "has 0 items", (("decode", "levels"), []))
    yield edited("distance as logit", "must be s16", (("decode", "levels", 0, 1), both[0][0]))
    yield edited("logit as distance", "must be s16", (("decode", "levels", 0, 0), both[0][1]))
    yield edited("maps of unequal size", "must be s16", (("decode", "levels", 1), [both[1][0], both[0][1]]))
    for index, level in ((1, 0), (2, 0), (3, 1), (4, 1)):
        yield edited(f"level of tensor {index}", "not an output", (("decode", "levels", level, 0), index))
    yield edited("level of the input", "power of two", (("decode", "levels", 0, 0), 0))
    more = ["upsample2", "more", [both[0][0]], {}]
    yield edited("level of stride 1", "power of two", (("graph", "nodes"), lambda n: n.append(more)),
                 (("graph", "outputs"), lambda o: o.append(16)), (("decode", "levels", 0, 0), 16))  # fmt: skip
    yield edited("level larger than the input", "power of two",
                 (("graph", "nodes"), lambda n: n.extend([more, ["upsample2", "most of all", [16], {}]])),
                 (("graph", "outputs"), lambda o: o.append(17)), (("decode", "levels", 0, 0), 17))  # fmt: skip


def the_rest(edits: Edits) -> Iterator[Attack]:
    """Decode, classes and policy."""
    edited = edits.edited
    yield edited("unknown decode", "unknown kind", (("decode", "kind"), "anchors"))
    yield edited("empty list of classes", "has 0 items", (("classes",), []))
    yield edited("one class more", "must be s16", (("classes",), ["a", "b", "c", "d"]))
    yield edited("one class less", "must be s16", (("classes",), ["a", "b"]))
    yield edited("too many classes", "has 1025 items", (("classes",), ["a"] * 1025))
    yield edited("region left out", "lacks", (("policy", "bits"), lambda b: b.pop("neck")))
    yield edited("0 bits", "two integers", (("policy", "bits", "neck"), [0, 4]))
    yield edited("33 bits", "two integers", (("policy", "bits", "neck"), [4, 33]))
    former = {"tensors": [], "constants": [], "nodes": [], "input": 0, "outputs": []}
    yield edited("graph of before the first release", "lacks|unknown key", (("graph",), former))
