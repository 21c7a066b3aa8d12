"""The command as a process of its own: pipes, Ctrl-C, and what it must not import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from train_squares import TINY

COMMAND = (sys.executable, "-m", "mpqyolo.cli.app")

# Stands before everything else on the path: whoever imports one of these fails as where it is not installed.
BLOCK = """
import sys
GONE = "torch cv2 pydantic safetensors yaml faster_coco_eval matplotlib onnx onnxruntime".split()
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in GONE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def python(code: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False)


def test_deployment_imports_no_package_of_training(packed: Path, squares: Path, tmp_path: Path):
    main = "\nfrom mpqyolo.cli.app import main\nsys.exit(main(sys.argv[1:]))"
    done = python(BLOCK + main, "predict", packed, squares / "images", "--out", tmp_path / "out", "--verify")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 8, done.stderr
    for words in (("info", packed), ("bench", packed, "--seconds", "0.1"), ("models",), ("--help",)):
        done = python(BLOCK + main, *words)
        assert done.returncode == 0, done.stderr
    done = python(BLOCK + main, "train", "--data", squares, "--out", tmp_path / "run")
    assert done.returncode == 2 and "pip install 'mpqyolo[train]'" in done.stderr and len(done.stderr.splitlines()) == 1
    done = python(BLOCK + main, "val", packed, "--data", squares)
    assert done.returncode == 2 and "mpqyolo[train]" in done.stderr


def test_the_python_interface_needs_no_package_of_training(packed: Path, squares: Path):
    code = "\nfrom mpqyolo import Detector\nfound = Detector(sys.argv[1]).predict(sys.argv[2])\nprint(found.xyxy.shape[1])"
    done = python(BLOCK + code + "\nassert not {'cyclopts', 'rich'} & set(sys.modules)", packed, squares / "images" / "0.png")
    assert done.returncode == 0 and done.stdout == "4\n", done.stderr


def test_import_is_cheap():
    done = python("import mpqyolo, sys; assert 'numpy' not in sys.modules and 'ctypes' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves(packed: Path, squares: Path):
    with subprocess.Popen(
        [*COMMAND, "predict", packed, *[squares / "images"] * 40, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert process.returncode == 141 and said == ""


def stopped(*words: object, until: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command that gets Ctrl-C when stderr has said `until`, or after three seconds."""

    def hear() -> None:  # shells start background work with SIGINT ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear
    ) as process:
        assert process.stderr
        said = ""
        if until:
            while until not in said and (line := process.stderr.readline()):
                said += line
        else:
            time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    return process.returncode, out, said + rest


def test_interrupt(packed: Path):
    assert stopped("bench", packed, "--seconds", "100", until="") == (130, "", "mpqyolo: interrupted\n")


def test_interrupted_training_says_how_to_go_on(squares: Path, tmp_path: Path):
    out = tmp_path / "a run"
    words = ("--data", squares, "--out", out, "--epochs", 1000, "--batch", 4, "--image-size", 64, "--set", TINY, "data.workers=0")
    code, _, said = stopped("train", *words, until="step")
    assert code == 130 and f"go on with: mpqyolo train --resume --out '{out}'" in said.splitlines()[-1]


def test_closed_and_narrow_streams(squares: Path, packed: Path, tmp_path: Path):
    closed = f'"{sys.executable}" -m mpqyolo.cli.app check "{squares}" >&-'
    done = subprocess.run(closed, shell=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    photo = tmp_path / "\u8eca.png"
    photo.write_bytes((squares / "images" / "0.png").read_bytes())
    narrow = os.environ | {"PYTHONIOENCODING": "ascii"}
    for words in ((), ("--json",)):
        done = subprocess.run([*COMMAND, "predict", packed, photo, *words], capture_output=True, timeout=120, env=narrow)
        assert done.returncode == 0 and b"\\u8eca.png" in done.stdout, done.stderr
