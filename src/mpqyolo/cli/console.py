"""What all commands say and how: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Annotated, Any

from cyclopts import Parameter

from mpqyolo.core.errors import ConfigError

Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="Print one JSON document on stdout instead of text.")
]

# Which extra brings a package that not every installation has.
_EXTRA = {
    **dict.fromkeys(("torch", "cv2", "safetensors", "pydantic", "faster_coco_eval", "yaml", "matplotlib"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime"), "export"),
    "av": "video",
}


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(document: Any, *, compact: bool = False) -> None:
    """A JSON document on stdout; compact: on one line."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(document, indent=None if compact else 1, ensure_ascii=ascii_only, allow_nan=False)
    print(text, flush=True)


def one_line(fault: BaseException) -> str:
    """The message without line breaks."""
    if isinstance(fault, OSError) and fault.filename and fault.strerror:
        return f"{fault.filename}: {fault.strerror}"
    return " ".join(str(fault).split()) or type(fault).__name__


def explain_missing(fault: ModuleNotFoundError) -> str:
    """Words for a package that this installation lacks. Raises the fault again if the package is none that an extra brings."""
    extra = _EXTRA.get((fault.name or "").partition(".")[0])
    if extra is None:
        raise fault
    return f"this command needs the package {fault.name}: pip install 'mpqyolo[{extra}]'"


def names(text: str, option: str) -> tuple[str, ...]:
    """Names from an option, with commas between them. Raises ConfigError if there are none."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise ConfigError(f"{option} '{text}': name at least one class, like {option} person,car")
    return found


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`320` or `HEIGHTxWIDTH`, px, as (height, width). Raises ConfigError unless both are multiples of 32."""
    if text is None:
        return None
    height, by, width = text.lower().partition("x")
    numbers = (height, width if by else height)
    if not all(n.isdecimal() and int(n) >= 32 and int(n) % 32 == 0 for n in numbers):
        raise ConfigError(f"--image-size {text}: give a multiple of 32, like 320, or HEIGHTxWIDTH, like 192x320")
    return int(numbers[0]), int(numbers[1])


class Progress:
    """A live bar on stderr where that is a terminal; silent elsewhere. `line` prints a result without breaking the bar."""

    def __init__(self, label: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(file=sys.stderr, highlight=False)
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"), TimeRemainingColumn())
        self._live = console.is_terminal
        # Redirecting stdout would send results to stderr when only one of them is a terminal.
        options: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False}
        self._bar = Bar(*columns, console=console, transient=True, disable=not self._live, **options)
        self._task = self._bar.add_task(label, total=None, pace="")
        self._unit = unit

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """`done` of `total` are through; None: nobody knows how many there are."""
        elapsed = self._bar.tasks[0].elapsed or 0.0
        pace = f"{done / elapsed:.1f} {self._unit}/s" if elapsed > 0.1 else ""
        self._bar.update(self._task, completed=done, total=total, pace=pace)

    def line(self, text: str) -> None:
        """A result: one line on stdout."""
        if self._live and sys.stdout.isatty():
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """A remark: one line on stderr."""
        if self._live:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            say(text)
