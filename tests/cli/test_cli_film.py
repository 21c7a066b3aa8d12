"""Films: frames in, a film out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_call import call, refused


@pytest.fixture
def film(tmp_path: Path) -> Path:
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 * shade, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def test_film(film: Path, packed: Path, tmp_path: Path):
    import av

    result = call("predict", packed, film, film, "--json", "--out", tmp_path / "out")
    documents = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [line["frame"] for line in documents] == [*range(6)] * 2, result.err
    assert (documents[0]["width"], documents[0]["height"]) == (96, 64)
    for name in ("film.mp4", "film-2.mp4"):
        with av.open(str(tmp_path / "out" / name)) as written:
            assert sum(1 for _ in written.decode(video=0)) == 6


def test_broken_film(film: Path, packed: Path, squares: Path):
    film.write_bytes(b"nonsense" * 50)
    result = call("predict", packed, film, squares / "images" / "0.png")
    assert result.code == 1 and len(result.out.splitlines()) == 1
    assert f"mpqyolo: {film}: cannot be read" in result.err


def test_no_camera(packed: Path):
    pytest.importorskip("av")
    result = call("predict", packed, "63")
    assert result.code == 1 and "camera 63: cannot be read" in result.err


def test_without_av(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "film.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'mpqyolo[video]'" in refused("predict", packed, tmp_path / "film.mp4")
