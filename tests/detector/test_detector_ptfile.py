import copy
import io
import os
import pickle
import pickletools
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import PosixPath
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.pickle_machine import read_pickle
from mpqyolo.detector.pickle_objects import Record
from mpqyolo.detector.ptfile import read_pt

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"  # 4 numbers in data/0


def tensor_pickle(offset=b"K\x00", shape=b"K\x04\x85", stride=b"K\x01\x85", storage=STORAGE) -> bytes:
    arguments = storage + offset + shape + stride + b"\x89)"
    return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."


def archive(path, data: bytes, numbers: bytes = bytes(16), compression=zipfile.ZIP_STORED, **more: bytes):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/data/0", numbers)
        for name, content in more.items():
            file.writestr(name, content)
    return path


@pytest.fixture
def their_modules(monkeypatch):
    """Classes of a package that the reader's machine does not have: `models.yolo` and `models.common`."""
    common, yolo = ModuleType("models.common"), ModuleType("models.yolo")

    def conv_init(self, c_in, c_out):
        nn.Module.__init__(self)
        self.conv, self.bn, self.act = nn.Conv2d(c_in, c_out, 3, bias=False), nn.BatchNorm2d(c_out), nn.SiLU()

    def model_init(self):
        nn.Module.__init__(self)
        self.model = nn.Sequential(common.Conv(3, 4), common.Conv(4, 8))
        self.names, self.stride, self.yaml = ["cat", "dog"], torch.tensor([8.0, 16.0, 32.0]), {"nc": 2}

    common.Conv = type("Conv", (nn.Module,), {"__init__": conv_init, "__module__": "models.common"})
    yolo.Model = type("Model", (nn.Module,), {"__init__": model_init, "__module__": "models.yolo"})
    for module in (ModuleType("models"), common, yolo):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return yolo


def test_a_whole_pickled_model_without_its_classes(tmp_path, their_modules, monkeypatch):
    model = their_modules.Model().half()
    extra = {"best_fitness": np.array([0.5]), "opt": {"weights": PosixPath("a/b"), "device": torch.device("cpu")}, "seen": {1, 2}}
    torch.save({"epoch": 7, "model": model, "ema": None, "date": "today", "optimizer": None, **extra}, tmp_path / "a.pt")
    want = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("models", "models.common", "models.yolo"):
        monkeypatch.delitem(sys.modules, name)
    file = read_pt(tmp_path / "a.pt")
    assert file.tensors.keys() == want.keys()
    for name, tensor in want.items():
        assert file.tensors[name].dtype == tensor.dtype and torch.equal(file.tensors[name], tensor)
    assert file.names == ("cat", "dog") and file.strides == (8, 16, 32) and file.meta == {"epoch": 7, "date": "today"}
    assert file.kinds["model.1"] == "models.common.Conv" and file.kinds["model.0.act"].endswith("SiLU")
    assert "models" not in sys.modules


def test_the_ema_is_preferred_and_names_may_be_a_dict(tmp_path, their_modules):
    model, ema = their_modules.Model(), their_modules.Model()
    ema.names = {0: "a", 1: "b"}
    torch.save({"model": model, "ema": ema}, tmp_path / "a.pt")
    file = read_pt(tmp_path / "a.pt")
    assert torch.equal(file.tensors["model.0.conv.weight"], ema.state_dict()["model.0.conv.weight"]) and file.names == ("a", "b")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 1}])
def test_state_dicts(tmp_path, wrap):
    base = torch.arange(12.0)
    state = OrderedDict(a=base[2:8].view(2, 3).t(), b=base, c=torch.ones(2, dtype=torch.bfloat16), d=torch.tensor(3))
    state["e"], state["f"] = torch.zeros(0, 3), nn.Parameter(torch.ones(2))
    torch.save(wrap(state), tmp_path / "a.pt")
    tensors = read_pt(tmp_path / "a.pt").tensors
    assert list(tensors) == list(state) and all(torch.equal(tensors[n], t) for n, t in state.items())
    assert tensors["a"].untyped_storage().data_ptr() == tensors["b"].untyped_storage().data_ptr()  # shared, not copied


class Payload:
    """Whatever `__reduce__` names is called by an ordinary pickle.load."""

    def __init__(self, *reduce: object) -> None:
        self.reduce = reduce

    def __reduce__(self):
        return self.reduce


def hostile(marker: str) -> dict[str, bytes]:
    command = f"touch {marker}"
    text = f"S'{command}'\n".encode()

    def dump(*reduce: object, protocol: int = 2) -> bytes:
        return pickle.dumps({"model": Payload(*reduce)}, protocol)

    return {
        "reduce os.system": dump(os.system, (command,)),
        "reduce, protocol 0": dump(os.system, (command,), protocol=0),
        "reduce, protocol 4": dump(os.system, (command,), protocol=4),
        "eval": dump(eval, (f"__import__('os').system({command!r})",)),
        "getattr": b"c__builtin__\ngetattr\n(cos\nsystem\nS'__call__'\ntR.",
        "nested in a tensor's arguments": b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\n(" + text + b"tR\x89)tR.",
        "nested global": b"cnumpy.core.multiarray\nos.system\n(" + text + b"tR.",
        "load from bytes": b"ctorch.storage\n_load_from_bytes\n(C\x04abcdtR.",
        "inst": b"(" + text + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text + b"o.",
        "call of an inert object": b"\x80\x02cos\nsystem\n)\x81(" + text + b"tR.",
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id of a wild type": STORAGE.replace(b"torch\nFloatStorage", b"os\nsystem") + b".",
        "textual persistent id": b"Pos.system\n.",
        "partial": b"cfunctools\npartial\n(cos\nsystem\n" + text + b"tR.",
        "run a module": b"crunpy\nrun_path\n(" + text + b"tR.",
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_nothing_of_a_hostile_pickle_runs(tmp_path, name):
    marker = tmp_path / "marker"
    data = hostile(str(marker))[name]
    with pytest.raises(CheckpointError, match="refused") as fault:
        read_pt(archive(tmp_path / "a.pt", data))
    assert str(tmp_path / "a.pt") in str(fault.value) and "\n" not in str(fault.value)
    assert not marker.exists()


def test_the_refusal_names_what_was_to_be_called(tmp_path):
    with pytest.raises(CheckpointError, match=r"it calls posix\.system"):
        read_pt(archive(tmp_path / "a.pt", hostile("x")["reduce os.system"]))


def test_states_and_new_objects_stay_inert(tmp_path):
    """__setstate__, __reduce__ and constructors of named classes are data: BUILD and NEWOBJ store them and call nothing."""
    marker = tmp_path / "marker"
    text = f"S'touch {marker}'\n".encode()
    made = read_pickle(b"\x80\x02cos\nsystem\n(" + text + b"t\x81.")
    assert isinstance(made, Record) and made.kind == "os.system"
    twice = b"\x80\x02cmodels.yolo\nModel\n)\x81}S'__setstate__'\ncos\nsystem\nsb" + text + b"b."
    built = read_pickle(twice)
    assert built.state == {"state": f"touch {marker}"} and not marker.exists()
    with pytest.raises(CheckpointError):  # attributes for a function
        read_pickle(b"\x80\x02cos\nsystem\n}S'__code__'\nK\x01sb.")
    with pytest.raises(CheckpointError):  # slots of one of our answers
        read_pickle(tensor_pickle()[:-2] + b"(N}S'offset'\nK\x63stb.")


@pytest.mark.parametrize(
    "change",
    [
        {"offset": b"K\x01"},
        {"shape": b"K\x05\x85"},
        {"stride": b"K\x02\x85"},
        {"offset": b"J\xff\xff\xff\xff"},
        {"stride": b"J\xff\xff\xff\xff\x85"},
        {"shape": b"J\xff\xff\xff\x7f\x85", "stride": b"K\x00\x85"},
        {"shape": b"K\x02K\x02\x86"},
        {"shape": b"\x88\x85"},
        {"storage": STORAGE.replace(b"K\x04", b"J\xff\xff\xff\x7f"), "shape": b"K\x04\x85"},
        {"storage": STORAGE.replace(b"FloatStorage", b"WildStorage")},
        {"storage": STORAGE.replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x007")},
        {"storage": STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x0b\x00\x00\x00../../../0")},
        {"storage": b"N"},
    ],
)
def test_tensors_that_leave_their_storage(tmp_path, change):
    assert read_pt(archive(tmp_path / "good.pt", tensor_pickle())).tensors["w"].tolist() == [0, 0, 0, 0]
    with pytest.raises(CheckpointError):
        read_pt(archive(tmp_path / "a.pt", tensor_pickle(**change)))


def test_archives_that_are_no_checkpoints(tmp_path):
    good = archive(tmp_path / "good.pt", tensor_pickle()).read_bytes()
    bomb = archive(tmp_path / "bomb.pt", tensor_pickle(), bytes(1 << 24), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 16
    cases = {
        "compressed": bomb.read_bytes(),
        "no complete": good[: len(good) // 2],
        "no complete ": pickle.dumps({}),
        "no complete  ": b"",
        "no data.pkl": archive_bytes({"a/b": b""}),
        "refused": archive_bytes({"archive/data.pkl": bytes(9 << 20)}),
        "big-endian": archive_bytes({"archive/data.pkl": tensor_pickle(), "archive/byteorder": b"big"}),
        "missing": archive_bytes({"archive/data.pkl": tensor_pickle()}),
        "of 4 numbers": archive_bytes({"archive/data.pkl": tensor_pickle(), "archive/data/0": bytes(15)}),
        "no tensors": archive_bytes({"archive/data.pkl": b"}."}),
        "no end": archive_bytes({"archive/data.pkl": b"}q\x01S'model'\nh\x01s."}),
    }
    for reason, content in cases.items():
        path = tmp_path / "a.pt"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=reason.strip()) as fault:
            read_pt(path)
        assert str(fault.value).startswith(f"{path}: ")
    with pytest.raises(CheckpointError, match="No such file"):
        read_pt(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="directory"):
        read_pt(tmp_path)


def archive_bytes(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, content in parts.items():
            out.writestr(name, content)
    return file.getvalue()


def test_one_part_of_the_file_cannot_be_a_thousand(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", tensor_pickle())
        file.writestr("archive/data/0", bytes(1 << 16))
        for key in range(1, 1000):  # entries of the directory that name the same bytes
            again = copy.copy(file.filelist[1])
            again.filename = f"archive/data/{key}"
            file.filelist.append(again)
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_pt(path)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + text("a\nb\x1b[31m") + text("c") + b"\x93)R.",
        b"\x80\x04" + text("a" * 100_000) + text("c") + b"\x93)R.",
        tensor_pickle(storage=STORAGE.replace(b"ctorch\nFloatStorage\n", text("torch") + text("Wild\nStorage") + b"\x93")),
    ],
)
def test_a_refusal_is_one_short_line_whatever_the_file_calls_things(tmp_path, data):
    with pytest.raises(CheckpointError, match="refused") as fault:
        read_pt(archive(tmp_path / "a.pt", data))
    assert str(fault.value).isprintable() and len(str(fault.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("stride", [float("inf"), float("nan"), -8.0, 1e30])
def test_strides_that_no_level_can_have(tmp_path, stride):
    tensor = tensor_pickle().removeprefix(b"\x80\x02}" + text("w")).removesuffix(b"s.")
    parameters = text("_parameters") + b"}" + text("w") + tensor + b"s"
    model = b"\x80\x02cmodels.yolo\nModel\n)\x81}(" + parameters + text("stride") + tensor + b"ub."
    good = archive(tmp_path / "good.pt", model, np.float32([8, 16, 32, 64]).tobytes())
    assert read_pt(good).strides == (8, 16, 32, 64)
    with pytest.raises(CheckpointError, match="its strides are"):
        read_pt(archive(tmp_path / "a.pt", model, np.float32([stride] * 4).tobytes()))


def peak_bytes(work) -> int:
    """What Python itself held at most; tensors are not in it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("first", ["a", ""])
def test_a_model_that_holds_itself_takes_no_memory(tmp_path, first):
    """A dict of many names for itself: each step down would list them all again."""
    entries = b"".join(text(name) + b"h\x01" for name in [first, *(f"{i:04x}" for i in range(5000))])
    path = archive(tmp_path / "a.pt", b"\x80\x02}q\x01(" + entries + b"u.")

    def refused() -> None:
        with pytest.raises(CheckpointError, match="no end"):
            read_pt(path)

    assert peak_bytes(refused) < 30 << 20


def test_numbers_that_many_tensors_share_are_refused(tmp_path):
    """They are views here, but whoever makes float32 of them would need the memory a hundred times over."""
    numbers = torch.zeros(50_000, dtype=torch.float16)
    torch.save({f"w{k}": numbers for k in range(3)}, tmp_path / "a.pt")
    assert len(read_pt(tmp_path / "a.pt").tensors) == 3
    torch.save({f"w{k}": numbers for k in range(100)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="share their numbers"):
        read_pt(tmp_path / "a.pt")


def test_a_damaged_storage_is_noticed(tmp_path):
    path = archive(tmp_path / "a.pt", tensor_pickle(), b"0123456789abcdef")
    path.write_bytes(path.read_bytes().replace(b"0123456789abcdef", b"0123456789abcdeX"))
    with pytest.raises(CheckpointError):
        read_pt(path)


def test_small_pickles_cannot_grow():
    nest = b"\x80\x02)" + b"".join(b"q\x01h\x01\x86" for _ in range(60))  # 2^60 leaves, if anybody walked them
    assert read_pickle(nest + b".") is not None
    with pytest.raises(CheckpointError):
        read_pickle(b"\x80\x02}" + nest[2:] + b"K\x01s.")  # as a key it would have to be hashed
    long_list = b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x01"
    again = b"c__builtin__\nset\nh\x01\x85R"
    found = read_pickle(long_list + again * 2000 + b"q\x02" + b"h\x02\x86.")
    assert found[1] is found[0] and len(found[0]) == 100_000


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=150)
@given(plain, st.sampled_from([0, 1, 2, 3, 4, 5]))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    def bytes_as_text(v):  # protocols before 3 spell bytes as a call of _codecs.encode, whose text we keep
        if isinstance(v, bytes) and protocol < 3:
            return v.decode("latin1") if v else None
        if isinstance(v, list | tuple):
            return type(v)(map(bytes_as_text, v))
        return {k: bytes_as_text(x) for k, x in v.items()} if isinstance(v, dict) else v

    if b"__builtin__\nbytes" in (data := pickle.dumps(value, protocol)):
        with pytest.raises(CheckpointError):
            read_pickle(data)
    else:
        assert read_pickle(data) == bytes_as_text(value)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_broken_pickles_give_one_error(data):
    good = tensor_pickle()
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(broken))
    except CheckpointError as fault:
        assert "\n" not in str(fault)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([op.code.encode("latin1") for op in pickletools.opcodes]) | st.binary(max_size=3), max_size=30))
def test_random_opcodes_give_one_error(parts):
    try:
        read_pickle(b"".join(parts) + b".")
    except CheckpointError as fault:
        assert "\n" not in str(fault)
