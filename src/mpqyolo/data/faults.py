"""What readers of data sets do with the faults they find: stop at the first (load) or collect them all (check)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mpqyolo.core.errors import DataError


@dataclass(frozen=True)
class Problem:
    """One finding. error: unusable as it stands; warning: readers mend or skip it; info: worth knowing. line 0: no line."""

    severity: str
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


class Faults:
    """A reader's complaints. `strict` raises DataError at the first error; otherwise all problems are kept in `problems`."""

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self.problems: list[Problem] = []

    def error(self, file: Path | str, line: int, message: str) -> None:
        """Report what makes the label or photo unusable. Raises DataError when strict; the caller skips it otherwise."""
        problem = Problem("error", str(file), line, message)
        if self.strict:
            raise DataError(str(problem))
        self.problems.append(problem)

    def warning(self, file: Path | str, line: int, message: str) -> None:
        """Report what the reader mends or skips by itself."""
        self.problems.append(Problem("warning", str(file), line, message))

    def info(self, file: Path | str, line: int, message: str) -> None:
        """Report what is no fault."""
        self.problems.append(Problem("info", str(file), line, message))

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Turn a DataError or OSError raised inside into a collected problem; if strict, into a DataError."""
        try:
            yield
        except DataError as error:
            if self.strict:
                raise
            self.problems.append(Problem("error", *_place(str(error))))
        except OSError as error:
            self.error(error.filename or "", 0, f"cannot be read ({error.strerror})")


def _place(message: str) -> tuple[str, int, str]:
    """Split `file:line: text` or `file: text` into (file, line, text)."""
    file, _, text = message.partition(": ")
    if not text:
        return "", 0, message
    name, _, line = file.rpartition(":")
    return (name, int(line), text) if name and line.isdigit() else (file, 0, text)
