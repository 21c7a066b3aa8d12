"""The command line: `mpqyolo COMMAND`. One file a command; this one joins them and turns faults into one line each."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from mpqyolo import __version__
from mpqyolo.cli import bench, check, info, models, pack, predict, train, val
from mpqyolo.cli.console import explain_missing, one_line, say
from mpqyolo.core.errors import InterruptError, MpqError

DONE, PARTLY, FAULT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

HELP = """Detectors with a 1-bit backbone and a 4-bit neck and head: train, pack into one small file, run on a plain CPU.

The usual order is check, train, pack, predict. MODEL is a `.mpqy` file, a run folder, a checkpoint, a name that
`mpqyolo models` lists, or a YOLOv5 `.pt` (val and predict also take `.onnx`).

Exit codes: 0 done; 1 done, but some photos failed or faults were found; 2 a fault that you can mend, named in one line;
130 interrupted; 141 whoever read the output closed it.
"""


def make_app() -> App:
    """The parser with all commands."""
    app = App(
        "mpqyolo",
        help=HELP,
        help_format="markdown",
        version=__version__,
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    for command in (check.check, train.train, val.val, pack.pack, predict.predict, info.info, bench.bench, models.models):
        app.command(command, sort_key=len(list(app)))
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. arguments: those of the process if None."""
    sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")  # noqa: SIM115 (closed ones)
    for stream in (sys.stdout, sys.stderr):  # names of classes and files that this terminal has no letters for
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = make_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        # Whoever read our output has had enough; what Python would still flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        say("mpqyolo: interrupted")
        return INTERRUPTED
    except InterruptError as fault:
        say(f"mpqyolo: {fault}")
        return INTERRUPTED
    except (MpqError, CycloptsError) as fault:
        say(f"mpqyolo: {one_line(fault)}")
    except ModuleNotFoundError as fault:
        say(f"mpqyolo: {explain_missing(fault)}")
    except OSError as fault:
        say(f"mpqyolo: {one_line(fault)}")
    return FAULT


if __name__ == "__main__":
    sys.exit(main())
