"""The Python reader refuses every hostile file with one line, and reads the valid ones."""

import re
import time

import numpy as np
import pytest
from make_attacks import attacks, base_model, valid_files

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.reader import loads, read_model
from mpqyolo.graph.ops import OPS

ALL = attacks()


def test_base_model_uses_everything():
    nodes = base_model().graph.nodes
    assert {n.op for n in nodes} == set(OPS)
    assert {role for n in nodes for role in n.constants} == {r for s in OPS.values() for r in (*s.required, *s.optional)}


def test_attacks_are_many_and_different():
    assert len(ALL) > 500 and len({a.name for a in ALL}) == len(ALL)
    assert not {a.data for a in ALL} & set(valid_files().values())


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name[:50].encode("unicode_escape").decode())
def test_refused_with_one_line(attack):
    start = time.monotonic()
    with pytest.raises(FileFormatError) as caught:
        loads(attack.data, "x.mpqy")
    message = str(caught.value)
    assert message.startswith("x.mpqy: ") and message.isprintable() and len(message) < 500
    assert re.search(attack.fault, message), message
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", valid_files())
def test_valid_files_are_read(name, tmp_path):
    data = valid_files()[name]
    path = tmp_path / "x.mpqy"
    path.write_bytes(data)
    model, original = read_model(path), base_model()
    assert model.graph.nodes == original.graph.nodes and model.graph.tensors == original.graph.tensors
    for key, constant in original.graph.constants.items():
        assert np.array_equal(model.graph.constants[key].values, constant.values)
