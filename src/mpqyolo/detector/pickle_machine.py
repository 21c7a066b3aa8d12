"""Reads a pickle without running it: every opcode is interpreted here, and none of them imports or calls anything of Python's.

A pickle is a program for a stack machine; its opcodes are described in the standard library's `pickletools`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from mpqyolo.core.errors import CheckpointError, printable
from mpqyolo.detector.pickle_objects import Global, build, call, new, storage

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bool, type(None))
_MARK = object()


def read_pickle(data: bytes) -> Any:
    """What a pickle holds: numbers, text, None, lists, tuples, dicts, TensorRef, Storage, Global, Record.

    Raises CheckpointError for calls, opcodes and references that a checkpoint has no need of, and for a pickle that is broken.
    """
    try:
        return _interpret(data)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as fault:
        raise CheckpointError(f"its pickle is broken: {printable(' '.join(str(fault).split())[:200])}") from None


def _interpret(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def after_mark() -> list[Any]:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def fill(target: Any, items: list[Any]) -> dict[Any, Any]:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _KEYS:  # a nest of tuples could take forever to hash
                raise ValueError(f"{type(key).__name__} as a key")
            _plain(target, dict)[key] = value
        return target

    arg: Any  # what it is depends on the opcode
    for opcode, arg, _at in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(arg)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(arg)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(after_mark()))
        elif name in ("LIST", "FROZENSET"):
            stack.append(after_mark())
        elif name == "DICT":
            stack.append(fill({}, after_mark()))
        elif name == "SETITEM":
            items = stack[-2:]
            del stack[-2:]
            fill(stack[-1], items)
        elif name == "SETITEMS":
            items = after_mark()
            fill(stack[-1], items)
        elif name == "APPEND":
            item = stack.pop()
            _plain(stack[-1], list).append(item)
        elif name in ("APPENDS", "ADDITEMS"):
            items = after_mark()
            _plain(stack[-1], list).extend(items)
        elif name == "GLOBAL":
            stack.append(Global(*arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, what = _plain(stack[-2], str), _plain(stack[-1], str)
            stack[-2:] = [Global(module, what)]
        elif name == "REDUCE":
            stack[-2:] = [call(*stack[-2:])]
        elif name == "NEWOBJ":
            stack[-2:] = [new(*stack[-2:])]
        elif name == "BUILD":
            state = stack.pop()
            build(stack[-1], state)
        elif name == "BINPERSID":
            stack[-1] = storage(stack[-1])
        elif name == "POP":
            stack.pop()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise CheckpointError(f"refused: its pickle has the opcode {name}, which no checkpoint of torch needs")
    raise ValueError("no end")


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} where {kind.__name__} is expected")
    return value
