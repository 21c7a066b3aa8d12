"""Detector: sources, threads, names, closing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mpqyolo
from mpqyolo.core.errors import ConfigError, EngineError, ImageError
from mpqyolo.reference.decode import detect
from mpqyolo.runtime import Detector, detector

PHOTO = np.random.default_rng(8).integers(0, 256, (50, 70, 3)).astype(np.uint8)


def same(a: mpqyolo.Detections, b: mpqyolo.Detections) -> bool:
    pairs = ((a.xyxy, b.xyxy), (a.score, b.score), (a.class_id, b.class_id))
    return all(np.array_equal(x, y) for x, y in pairs) and a.names == b.names and a.size == b.size


def test_detector_equals_the_reference(model, model_file: Path):
    find = mpqyolo.Detector(model_file, min_score=0.1)
    assert find.names == model.classes
    right = detect(model, PHOTO, 0.1)
    assert len(right) and same(find.predict(PHOTO), right)
    assert same(find.predict(PHOTO, min_score=0.6, iou=0.2), detect(model, PHOTO, 0.6, 0.2))
    assert same(Detector(model_file.read_bytes(), iou=0.3).predict(PHOTO), detect(model, PHOTO, 0.25, 0.3))
    assert find.predict(PHOTO).xyxy.flags.owndata or find.predict(PHOTO).xyxy.base is None


def test_sources(model_file: Path, tmp_path: Path):
    find = Detector(model_file, min_score=0.1)
    right = find.predict(PHOTO)
    image = Image.fromarray(PHOTO)
    image.save(tmp_path / "x.png")
    alpha = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 9, np.uint8)])
    for source in (tmp_path / "x.png", str(tmp_path / "x.png"), image, alpha, Image.fromarray(alpha)):
        assert same(find.predict(source), right)
    grey = PHOTO[:, :, 0]
    assert same(find.predict(grey), find.predict(np.repeat(grey[:, :, None], 3, 2)))
    assert same(find.predict(grey), find.predict(Image.fromarray(grey)))

    turned = Image.fromarray(np.rot90(PHOTO))  # taken with the camera on its side, as EXIF says
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert same(find.predict(tmp_path / "turned.png"), right)
    assert same(find.predict(Image.open(tmp_path / "turned.png")), right)

    several = find.predict([tmp_path / "x.png", PHOTO, grey])
    assert isinstance(several, list) and same(several[0], right) and same(several[1], right)
    assert find.predict([]) == [] and find([PHOTO])[0].size == (70, 50)


@pytest.mark.parametrize("source", [None, 3, np.zeros((4, 4, 3)), np.zeros((2, 3, 4, 5), np.uint8), b"jpeg", "no/such.jpg"])
def test_what_is_no_photo(model_file: Path, source: object):
    find = Detector(model_file)
    with pytest.raises(ImageError) as caught:
        find.predict(source)
    assert "\n" not in str(caught.value)
    assert len(find._idle) == 1  # the session is back


def test_image_size(model_file: Path):
    wide = Detector(model_file, image_size=64)
    assert (wide.info.height, wide.info.width) == (64, 64)
    with pytest.raises(EngineError, match="multiple"):
        Detector(model_file, image_size=(64, 65))
    assert Detector(model_file, image_size=[64, 64]).info.width == 64
    for wrong in ({"image_size": 2**32 + 64}, {"image_size": "64"}, {"threads": 2**32 + 1}, {"threads": 0}):
        with pytest.raises(EngineError, match="must be a whole number from 1 on"):
            Detector(model_file, **wrong)
    for wrong in ({"min_score": 2}, {"iou": 7}, {"min_score": float("nan")}):
        with pytest.raises(ConfigError, match=r"must be 0\.\.1"):
            Detector(model_file, **wrong)


def test_many_threads_share_a_detector(model_file: Path):
    find = Detector(model_file, min_score=0.1)
    rng = np.random.default_rng(3)
    photos = [rng.integers(0, 256, (40 + i, 90 - i, 3)).astype(np.uint8) for i in range(24)]
    right = find.predict(photos)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            found = list(pool.map(find.predict, photos))
            assert all(same(a, b) for a, b in zip(found, right, strict=True))
    assert len(find._idle) <= detector.MAX_SESSIONS


def test_closing(model_file: Path):
    with Detector(model_file, threads=2) as find:
        find.predict(PHOTO)
    with pytest.raises(EngineError, match="closed"):
        find.predict(PHOTO)
    find.close()


def test_names_of_carried_models(monkeypatch: pytest.MonkeyPatch, model_file: Path, tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.mpqy").write_bytes(model_file.read_bytes())
    monkeypatch.setattr(mpqyolo, "__path__", [str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()  # names come before paths
    assert detector.resolve("tiny") == tmp_path / "models" / "tiny.mpqy"
    assert Detector("tiny").info.height == 64
    with pytest.raises(ConfigError, match=r"no model 'huge'.*comes with the package: tiny"):
        Detector("huge")
    assert detector.resolve(model_file) == model_file and detector.resolve("tiny.mpqy") == Path("tiny.mpqy")


def test_evaluation_takes_a_detector(model_file: Path):
    found = Detector(model_file, min_score=0.01)([PHOTO, PHOTO[:20]])
    assert [d.size for d in found] == [(70, 50), (70, 20)]
    with pytest.raises(ImageError, match="call predict"):
        Detector(model_file)(PHOTO)
