"""`mpqyolo val`: how good is a model on labelled photos?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mpqyolo.cli.console import Json, Progress, emit, names, parse_size, say
from mpqyolo.cli.resolve import open_predictor
from mpqyolo.core.errors import ConfigError

_AS_TRAINED = "Of a run or checkpoint, score the network as it was trained, not the integers that its file would hold."
AsTrained = Annotated[bool, Parameter(negative="", show_default=False, help=_AS_TRAINED)]
MIN_SCORE = 0.001  # average precision wants the whole curve


def val(
    model: str,
    /,
    *,
    data: Path,
    split: str = "val",
    only: str | None = None,
    image_size: str | None = None,
    threads: int = 1,
    batch: int = 16,
    iou: Annotated[float | None, Parameter(help="Overlap above which boxes of a class suppress each other.")] = None,
    as_trained: AsTrained = False,
    json: Json = False,
) -> int:
    """Average precision of a model on labelled photos.

    Classes are matched by name (`aeroplane` is `airplane`), so a YOLOv5 `.pt` of 80 classes can be scored on any data.

    Parameters
    ----------
    model
        A `.mpqy` file, a run folder or checkpoint, a name (see `mpqyolo models`), a YOLOv5 `.pt`, or an `.onnx` file.
    data
        The data set: VOC, COCO or YOLO.
    split
        Which photos: train, val, test, or what the data set has.
    only
        Classes of the data that count, with commas between them; others become background. All if not given.
    image_size
        Side of the network's input in px, or HEIGHTxWIDTH; multiples of 32. As the model says if not given.
    threads
        Threads for the network.
    batch
        Photos in hand at once.
    """
    if not 1 <= batch <= 1024:
        raise ConfigError(f"--batch {batch}: must be 1..1024")
    from mpqyolo.data.formats import load
    from mpqyolo.evaluate import evaluate

    dataset = load(data, split, None if only is None else names(only, "--only"))
    predictor = open_predictor(model, parse_size(image_size), MIN_SCORE, threads, iou, as_trained)
    find = predictor.over(dataset.classes)
    if missing := predictor.missing(dataset.classes):
        say(f"the model cannot find, and scores 0 on: {', '.join(missing)}; --only scores chosen classes")
    with Progress("evaluating", "photos") as progress:
        result = evaluate(find, dataset, batch, progress)
    size = list(predictor.image_size)
    if json:
        about: dict[str, Any] = {"model": model, "data": str(data), "split": split, "image_size": size}
        emit(result.as_dict() | about | {"backend": predictor.backend})
        return 0
    width = max(len(name) for name in ("class", *result.per_class))
    print(f"{'class':<{width}}  images  boxes     AP   AP50  VOC AP50")
    for name, row in result.per_class.items():
        scores = "  ".join(f"{row[key]:5.3f}" if row[key] is not None else "    -" for key in ("ap", "ap50", "voc_ap50"))
        print(f"{name:<{width}}  {row['images']:6}  {row['boxes']:5}  {scores}")
    print(f"{'mean':<{width}}  {result.images:6}         {result.map:5.3f}  {result.map50:5.3f}  {result.voc_ap50:5.3f}")
    say(f"{model} on {data} ({split}): {size[0]}x{size[1]} px, {predictor.backend}")
    return 0
