"""The command as a process of its own: pipes, Ctrl-C, and what it must not import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_interrupt(packed: Path):
    def hear() -> None:  # shells start background work with SIGINT ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        [*COMMAND, "bench", packed, "--seconds", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear,
    ) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and said == "mpqyolo: interrupted\n"
