"""Description: what an ONNX detector wants to be shown and what its outputs mean, in a small TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mpqyolo.core.errors import ConfigError
from mpqyolo.train.recipe import guess

CARRIED = Path(__file__).parent
Output = int | str  # an output of the file by its place or by its name
Pixels = Annotated[int, Field(ge=1)]
Spread = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputPart(_Part):
    """What the network is shown: (pixel - mean) / std, pixels in 0..255, mean and std in the order of `colour`.

    size: (height, width) px for files that leave it open; without it such a file gets the training images' own size.
    resize: whether images are stretched to that size, or fitted into its upper left corner, the rest grey 114.
    """

    size: tuple[Pixels, Pixels] | None = None
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Spread, Spread, Spread] = (1.0, 1.0, 1.0)
    resize: Literal["stretch", "fit"] = "fit"


class OutputPart(_Part):
    """What the outputs mean. Several outputs of one sort are the levels, in the order of `strides`.

    kind: distribution, objectness (teachers/decoding.py says what they are), or boxes: rows that are final already.
    scores: outputs (B, cells, classes). boxes: outputs (B, cells, 4 x bins). Without `boxes`, `scores` hold both in one row.
    channels_first: they are (B, channels, cells) or (B, channels, h, w) instead. sigmoid: scores are still logits.
    centre: where a cell's point lies, in cells from its upper left corner. columns: of the rows of kind boxes.
    """

    kind: Literal["distribution", "objectness", "boxes"]
    scores: tuple[Output, ...] = Field(default=(0,), min_length=1)
    boxes: tuple[Output, ...] = ()
    channels_first: bool = False
    sigmoid: bool = False
    centre: float = 0.5
    columns: tuple[Literal["x1", "y1", "x2", "y2", "score", "class"], ...] = ("x1", "y1", "x2", "y2", "score", "class")

    @model_validator(mode="after")
    def _columns_differ(self) -> OutputPart:
        if len(set(self.columns)) != 6:
            raise ValueError("columns: must name x1, y1, x2, y2, score and class, each once")
        return self


class Description(_Part):
    """A detector. weights: its ONNX file, from the folder of this one. strides: px, of its levels.

    classes: names in the order of its scores, or "coco": the 80 of COCO 2017.
    """

    weights: str = ""
    classes: tuple[str, ...] | Literal["coco"] = "coco"
    strides: tuple[Pixels, ...] = Field(default=(8, 16, 32), min_length=1)
    input: InputPart = InputPart()
    output: OutputPart

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of its scores."""
        return tuple((CARRIED / "coco.txt").read_text().splitlines()) if self.classes == "coco" else self.classes


def carried() -> tuple[str, ...]:
    """Names of the descriptions that the package carries; their weights are the user's."""
    return tuple(sorted(path.stem for path in CARRIED.glob("*.toml")))


def read_description(source: str | Path) -> tuple[Description, Path | None]:
    """A carried description by name, or one in a file, and the weights that it names. Raises ConfigError in one line."""
    path = CARRIED / f"{source}.toml" if str(source) in carried() else Path(source)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"no teacher '{source}': neither a file nor one of {', '.join(carried())}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        found = Description.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None
    return found, path.parent / found.weights if found.weights else None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    parts: dict[str, type[BaseModel]] = {"input": InputPart, "output": OutputPart}
    part = parts.get(str(first["loc"][0]), Description) if len(first["loc"]) > 1 else Description
    known = list(part.model_fields)
    return f"unknown key '{where}'{guess(str(first['loc'][-1]), known)}; known here: {', '.join(known)}"
