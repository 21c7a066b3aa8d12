"""What is the user's to mend costs one line, never a traceback, and never the other photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_call import call, refused
from PIL import Image


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (60, 40), **options) -> Path:
    rng = np.random.default_rng(1)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "I;16": ()}[mode]
    kind = np.uint16 if mode == "I;16" else np.uint8
    pixels = rng.integers(0, 65535 if kind == np.uint16 else 255, (size[1], size[0], *channels)).astype(kind)
    Image.fromarray(pixels, mode if mode == "CMYK" else None).save(path, **options)
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of photos of every kind, and two that are none."""
    folder = tmp_path / "odd"
    folder.mkdir()
    photo(folder / "a_grey.png", "L")
    photo(folder / "b_rgba.png", "RGBA")
    photo(folder / "c_cmyk.jpg", "CMYK")
    photo(folder / "d_16bit.png", "I;16")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    photo(folder / "e_turned.jpg", exif=exif)
    photo(folder / "f_dot.png", size=(1, 1))
    photo(folder / "g_line.png", size=(10_000, 20))
    photo(folder / "h_pole.png", size=(20, 10_000))
    (folder / "i_broken.jpg").write_bytes(b"\xff\xd8\xff" + b"nonsense" * 20)
    whole = photo(folder / "j_cut.jpg", size=(300, 300)).read_bytes()
    (folder / "j_cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "k_empty.png").write_bytes(b"")
    photo(folder / "l_last.webp")
    return folder


@pytest.mark.parametrize("model", ["packed", "run"])
def test_odd_photos(model: str, odd: Path, request: pytest.FixtureRequest, tmp_path: Path):
    result = call("predict", request.getfixturevalue(model), odd, "--json", "--out", tmp_path / "out", "--min-score", 0.01)
    assert result.code == 1
    found = {Path(line["source"]).name: line for line in map(json.loads, result.out.splitlines())}
    assert [name[0] for name in found] == list("abcdefghl")
    assert (found["e_turned.jpg"]["width"], found["e_turned.jpg"]["height"]) == (40, 60)
    assert (found["g_line.png"]["width"], found["g_line.png"]["height"]) == (10_000, 20)
    for line in found.values():
        for box in line["detections"]:
            x1, y1, x2, y2 = box["xyxy"]
            assert 0 <= x1 <= x2 <= line["width"] and 0 <= y1 <= y2 <= line["height"]
    complaints = [line for line in result.err.splitlines() if line.startswith("mpqyolo: ")]
    assert len(complaints) == 3 and all(name in " ".join(complaints) for name in ("i_broken", "j_cut", "k_empty"))
    assert len(list((tmp_path / "out").iterdir())) == len(found)


def test_missing_sources(packed: Path, odd: Path, tmp_path: Path):
    result = call("predict", packed, tmp_path / "no.jpg", odd / "a_grey.png", f"{tmp_path}/*.xyz")
    assert result.code == 1 and len(result.out.splitlines()) == 1
    assert "no.jpg: there is no such file" in result.err and "no file fits" in result.err
    assert "there is no such file" in refused("predict", packed, tmp_path / "no.jpg")
    (tmp_path / "bare").mkdir()
    assert "no photos" in refused("predict", packed, tmp_path / "bare")


def test_damaged_models(packed: Path, run: Path, odd: Path, tmp_path: Path):
    whole = packed.read_bytes()
    photo = odd / "a_grey.png"
    for name, data in {"cut": whole[:-10], "flipped": whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], "empty": b""}.items():
        file = tmp_path / f"{name}.mpqy"
        file.write_bytes(data)
        for words in (("predict", file, photo), ("info", file), ("bench", file), ("predict", file, photo, "--verify")):
            assert f"{name}.mpqy" in refused(*words)
    for name in ("x.safetensors", "x.pt", "x.onnx", "x.unknown"):
        (tmp_path / name).write_bytes(b"nonsense" * 100)
        assert name in refused("predict", tmp_path / name, photo)
    assert "no such model" in refused("predict", tmp_path / "no.mpqy", photo)
    assert "nosuch" in refused("info", "nosuch")
    refused("pack", tmp_path, "--out", tmp_path / "x.mpqy")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("info",),
        ("info", "n", "--image-size", "33"),
        ("info", "n", "--image-size", "32x"),
        ("info", "n", "--classes", "0"),
        ("info", "n", "--policy", "nosuch"),
        ("info", "n", "--nosuch"),
        ("bench", "n", "--seconds", "0"),
        ("bench", "n", "--image-size", "64", "--isa", "nosuch"),
        ("bench", "n", "--image-size", "64", "--threads", "0"),
        ("check", "/nonexistent"),
        ("train", "--out", "{tmp}"),
        ("train", "--out", "{tmp}", "--resume"),
        ("train", "--out", "{tmp}", "--data", "/nonexistent"),
        ("train", "--out", "{tmp}", "--data", "{tmp}", "--model", "nosuch"),
        ("train", "--out", "{tmp}", "--data", "{tmp}", "--recipe", "nosuch"),
        ("train", "--out", "{tmp}", "--data", "{tmp}", "--set", "epohcs=3"),
        ("train", "--out", "{tmp}", "--data", "{tmp}", "--image-size", "33"),
        ("train", "--out", "{tmp}", "--data", "{tmp}", "--model", "paper-n", "--family", "mpq"),
        ("val", "n", "--data", "/nonexistent"),
        ("predict", "n"),
        ("predict", "n", "x.jpg", "--min-score", "2"),
    ],
)
def test_bad_options(words: tuple[str, ...], tmp_path: Path):
    refused(*(word.replace("{tmp}", str(tmp_path)) for word in words))


def test_what_cannot_be_written(packed: Path, odd: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert "file" in refused("predict", packed, odd / "a_grey.png", "--out", tmp_path / "file")


def test_options_that_would_count_for_nothing_are_refused(packed: Path, squares: Path, tmp_path: Path):
    for words in (("info", packed, "--policy", "w1a2"), ("info", packed, "--classes", 3), ("bench", packed, "--policy", "w1a2")):
        assert f"{words[2]} is for networks with random weights" in refused(*words)
    for words in (("predict", "n", squares / "images"), ("val", "n", "--data", squares)):
        assert "a network with random weights finds nothing" in refused(*words)
    assert "is for runs and checkpoints" in refused("val", packed, "--data", squares, "--as-trained")
    assert "leave --policy out" in refused("info", "yolov5n", "--policy", "w1a2")
    assert "policy 'float' has no integers" in refused("info", "n", "--policy", "float")
    assert "name at least one class" in refused("val", packed, "--data", squares, "--only", "")
    assert "name at least one class" in refused("train", "--data", squares, "--out", tmp_path / "new", "--classes", ",")
    assert not (tmp_path / "new").exists()


def test_numbers_out_of_range(packed: Path, run: Path, squares: Path, tmp_path: Path):
    for iou in (-1, 0, 1.5, "nan"):
        for model in (packed, run):
            assert "must be above 0 and at most 1" in refused("val", model, "--data", squares, "--iou", iou)
    for switch in ("min_visible=2", "mosaic=2", "scale=1", "translate=nan", "hsv_v=inf", "flip=-1"):
        words = ("train", "--data", squares, "--out", tmp_path / "new", "--set", f"augment.{switch}")
        assert f"augment.{switch.partition('=')[0]} = " in refused(*words)
    assert "--batch 0: must be 1..1024" in refused("val", packed, "--data", squares, "--batch", 0)
    assert "--workers 0: must be 1..64" in refused("check", squares, "--workers", 0)
    assert "--threads 0: must be 1..64" in refused("bench", packed, "--threads", 0)
    assert "there is no such run" in refused("pack", tmp_path / "nothing", "--out", tmp_path / "x.mpqy")
