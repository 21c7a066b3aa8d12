"""`mpqyolo predict`: boxes on photos, films, or what a camera sees."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mpqyolo.cli.console import Progress, emit, one_line, parse_size, say
from mpqyolo.cli.pictures import Pictures
from mpqyolo.cli.resolve import open_predictor, resolve
from mpqyolo.cli.sources import Frame, Group, all_frames, expand, import_av
from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import ConfigError, MpqError

_LINES = "Print one JSON document a photo, each on a line of its own."
_VERIFY = "Compare every tensor with the slow, exact reference; name the first that differs. Packed models only."
Lines = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help=_LINES)]
Verify = Annotated[bool, Parameter(negative="", show_default=False, help=_VERIFY)]


def predict(
    model: str,
    source: Annotated[tuple[str, ...], Parameter(negative="")],
    /,
    *,
    out: Path | None = None,
    min_score: float = 0.25,
    threads: int = 1,
    image_size: str | None = None,
    iou: float | None = None,
    verify: Verify = False,
    json: Lines = False,
) -> int:
    """Find objects on photos.

    Photos are decoded while the network runs. A photo that cannot be read costs one line and exit code 1, not the others.

    Parameters
    ----------
    model
        A `.mpqy` file, a name (see `mpqyolo models`), a run folder or checkpoint, a YOLOv5 `.pt`, or an `.onnx` file.
    source
        Photos, folders, patterns (in quotes), video files, or the number of a camera.
    out
        Folder for annotated pictures; a film becomes a film. Without it nothing is written.
    min_score
        Show what is at least this certain, 0..1.
    threads
        Threads for the network.
    image_size
        Side of the network's input in px, or HEIGHTxWIDTH; multiples of 32. As the model says if not given.
    iou
        Overlap above which boxes of a class suppress each other; as the model says if not given.
    """
    if not 0 <= min_score <= 1:
        raise ConfigError(f"--min-score {min_score:g}: must be 0..1")
    groups, failures = _expand(source, out)
    if any(group.kind != "photos" for group in groups):
        import_av()
    size = parse_size(image_size)
    predictor = open_predictor(model, size, min_score, threads, iou)
    verifier = _verifier(model, predictor.image_size, threads) if verify else None
    counts = [group.count for group in groups]
    total = None if None in counts else sum(n or 0 for n in counts)
    done, good, busy = 0, 0, 0.0
    with ExitStack() as stack:
        pictures = stack.enter_context(Pictures(out)) if out else None
        progress = stack.enter_context(Progress("predicting", "photos"))
        for frame in all_frames(groups):
            done += 1
            if frame.photo is None:
                failures += 1
                progress.note(f"mpqyolo: {frame.fault}")
                progress(done, total)
                continue
            start = time.perf_counter()
            found = predictor([frame.photo])[0]
            seconds = time.perf_counter() - start
            good, busy = good + 1, busy + seconds
            wrong = str(verifier.difference(frame.photo, min_score) or "") if verifier else None
            if wrong:
                failures += 1
                progress.note(f"mpqyolo: {frame.source}: engine and reference differ, first in {wrong}")
            if pictures:
                pictures.add(frame, found)
            document = describe(frame, found, seconds * 1e3) | ({} if wrong is None else {"first_difference": wrong or None})
            if json:
                emit(document, compact=True)
            else:
                progress.line(_sentence(document))
            progress(done, total)
    if good:
        end = f"; pictures are in {out}" if out else ""
        photos = "1 photo" if good == 1 else f"{good} photos"
        say(f"{photos}, {busy / good * 1e3:.1f} ms each for {predictor.backend}{'; verified' if verify else ''}{end}")
    return 1 if failures else 0


def _expand(sources: tuple[str, ...], out: Path | None) -> tuple[list[Group], int]:
    """(what there is, how many sources there are not). Raises the first fault if there is nothing at all, and for an `out` where
    pictures would replace the photos that they are made from."""
    groups, faults = [], []
    for source in sources:
        try:
            groups.append(expand(source, out))
        except MpqError as fault:
            faults.append(fault)
    if not groups:
        raise faults[0] if faults else ConfigError("say what to look at: a photo, folder, pattern, video file or camera number")
    for path in (path for group in groups for path in (*group.paths, *([Path(group.name)] if group.kind == "film" else []))):
        if out is not None and path.parent.resolve() == out.resolve():
            raise ConfigError(f"--out {out}: pictures would replace the originals ({path} lies there); give another folder")
    for line in map(one_line, faults):
        say(f"mpqyolo: {line}")
    return groups, len(faults)


def _verifier(model: str, size: tuple[int, int], threads: int) -> Any:
    from mpqyolo.evaluate.verify import Verifier

    ref = resolve(model)
    if ref.kind != "packed":
        raise ConfigError(f"--verify compares the engine with the reference, so it needs a packed model, and {model} is none")
    return Verifier(ref.path, size, threads)


def describe(frame: Frame, found: Detections, milliseconds: float) -> dict[str, Any]:
    """The JSON document of one photo."""
    assert frame.photo is not None
    height, width = frame.photo.shape[:2]
    where: dict[str, Any] = {"source": frame.source} | ({"frame": frame.number} if frame.number >= 0 else {})
    return where | {"width": width, "height": height, "latency_ms": round(milliseconds, 3), "detections": found.to_dict()}


def _sentence(document: dict[str, Any]) -> str:
    counts = Counter(box["class_name"] for box in document["detections"])
    seen = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"
    place = document["source"] + (f" #{document['frame']}" if "frame" in document else "")
    return f"{place}: {seen}   {document['width']}x{document['height']}, {document['latency_ms']:.1f} ms"
