"""Running one command in this process."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from mpqyolo.cli.app import main


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*words: object) -> Result:
    """One command in this process. Whatever it says, it says it without a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())


def refused(*words: object) -> str:
    """A command that fails by a fault of its user: exit code 2 and one line, which is returned."""
    result = call(*words)
    lines = result.err.splitlines()
    assert result.code == 2 and result.out == "" and len(lines) == 1 and lines[0].startswith("mpqyolo: "), result
    return lines[0]
