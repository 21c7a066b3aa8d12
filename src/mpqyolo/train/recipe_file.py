"""Reading and writing recipes: TOML files, the carried ones by name, and `--set` overrides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.train import toml
from mpqyolo.train.files import write_text
from mpqyolo.train.recipe import Quantise, Recipe, Stage, guess
from mpqyolo.train.teachers.description import carried

RECIPES = Path(__file__).parent / "recipes"
RUN_FILE = "run.toml"


def names() -> tuple[str, ...]:
    """The recipes that the package carries."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def load_recipe(source: str | Path = "pnq", overrides: Iterable[str] = (), **sections: Any) -> Recipe:
    """Read a recipe: a carried one by name, or a TOML file, which may say `base = "pnq"` and change only some keys.

    base is a carried name, or a file from the folder of the one that says it, or else from where the program runs.
    overrides: `key=value`, `section.key=value` or `stage.key=value`, the value in TOML (bare words are strings).
    sections: what the command line decides, e.g. `epochs=10, model={"size": "s"}`; they lie between file and overrides.
    Raises ConfigError that names file, key, and the keys that are known.
    """
    tree = _merge(_read(source), sections)
    for override in overrides:
        _override(tree, override)
    return parse(tree, str(source))


def parse(tree: Mapping[str, Any], where: str) -> Recipe:
    """The recipe in this tree of plain values; `where` is named in the ConfigError."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write run.toml, which reproduces the run by itself: `mpqyolo train --recipe run.toml --out ANOTHER`."""
    head = "# A run of mpqyolo, with every default spelled out. Reproduce it: mpqyolo train --recipe run.toml --out ANOTHER\n"
    write_text(folder / RUN_FILE, head + toml.dumps(recipe.model_dump(mode="json")))


def run_recipe(path: Path | str) -> Recipe:
    """The recipe of a run folder, or of the run folder that a checkpoint lies in. Raises CheckpointError without one."""
    path = Path(path)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / RUN_FILE).is_file():
            return load_recipe(folder / RUN_FILE)
    raise CheckpointError(f"{path}: no {RUN_FILE} beside it or above it, so nothing says what network its weights belong to")


def placed(recipe: Recipe, from_: Path | str | None = None) -> Recipe:
    """The recipe with what it starts from, and with absolute paths, so that its run can be resumed from anywhere."""

    def absolute(path: str) -> str:
        return str(Path(path).absolute()) if path and Path(path).exists() else path

    data, teacher = recipe.data, recipe.teacher
    model = teacher.model if teacher.model in carried() else absolute(teacher.model)
    places: dict[str, Any] = {"start": absolute(str(from_ or recipe.start))}
    places["data"] = data.model_copy(update={"path": absolute(data.path), "unlabelled": absolute(data.unlabelled)})
    places["teacher"] = teacher.model_copy(update={"path": absolute(teacher.path), "model": model})
    return recipe.model_copy(update=places)


def differs(asked: Recipe, own: Recipe, from_: Path | str | None = None) -> bool:
    """Whether a recipe given to go on is another than the run's own. What it leaves open is as the run has filled it in."""
    asked, own = placed(asked, from_), placed(own)
    filled: dict[str, Any] = {"start": asked.start or own.start}
    filled["model"] = asked.model.model_copy(update={"classes": asked.model.classes or own.model.classes})
    filled["optimiser"] = asked.optimiser.model_copy(update={"lr": asked.optimiser.lr or own.optimiser.lr})
    return asked.model_copy(update=filled) != own


def _read(source: str | Path, depth: int = 0) -> dict[str, Any]:
    path = RECIPES / f"{source}.toml" if str(source) in names() else Path(source)
    if not path.is_file():
        raise ConfigError(f"no recipe '{source}': neither a file nor one of {', '.join(names())}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    base = tree.pop("base", None)
    if base is None:
        parse(tree, str(path))  # so that a fault is reported with the file that has it
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be a recipe's name or file in quotes, got {base!r}")
    if depth > 4:
        raise ConfigError(f"{path}: base leads in a circle")
    beside = path.parent / base
    merged = _merge(_read(beside if base not in names() and beside.is_file() else base, depth + 1), tree)
    parse(merged, str(path))
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write it as key=value, section.key=value or stage.key=value")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    head, *path = key.strip().split(".")
    listed = tree.get("stages", ())
    if not isinstance(listed, (list, tuple)) or not all(isinstance(stage, Mapping) for stage in listed):
        raise ConfigError(f"stages must be a list of tables, got {listed!r}")  # what an earlier override made of them
    stages = [dict(stage) for stage in listed]
    named = {str(stage.get("name")): stage for stage in stages}
    if path and head in named:
        node, tree["stages"] = named[head], stages
    elif head in Recipe.model_fields:
        node, path = tree, [head, *path]
    else:
        known = [*Recipe.model_fields, *named]
        raise ConfigError(f"--set {text}: unknown key or stage '{head}'{guess(head, known)}; known: {', '.join(known)}")
    for part in path[:-1]:
        child = node.get(part, {})
        if not isinstance(child, Mapping):
            raise ConfigError(f"--set {text}: '{part}' holds a value, not keys")
        node[part] = dict(child)
        node = node[part]
    node[path[-1]] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        message = re.sub("^Value error, ", "", first["msg"])
        return f"{where}: {message}, got {first['input']!r}" if where else message
    known = _known_keys(first["loc"][:-1])
    return f"unknown key '{where}'{guess(str(first['loc'][-1]), known)}; known here: {', '.join(known)}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    fields = {name: field.annotation for name, field in Recipe.model_fields.items()}
    parts = {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    parts |= {"stages": Stage, "quantise": Quantise}
    words = [part for part in path if isinstance(part, str)]
    part = parts[words[-1]] if words else Recipe
    return list(part.model_fields)
