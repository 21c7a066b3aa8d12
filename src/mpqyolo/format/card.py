"""The model card that travels in the file: what the model is, where it comes from, what it reached."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from mpqyolo.core.errors import FileFormatError, printable
from mpqyolo.format.strict import check_json

REQUIRED = ("name", "family", "size", "image_size", "created", "licence")


def make_card(
    name: str,
    family: str,
    size: str,
    image_size: int | Sequence[int],
    *,
    licence: str = "Apache-2.0",
    data: str | Mapping[str, Any] = "not stated",
    recipe: str | Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    commit: str | None = None,
    created: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A model card.

    family: "mpq" or "paper"; size: "n", "s", "m"; data: name, licence and source of the training set; recipe: what was trained,
    how; metrics: {"val_map50": ...}; created: ISO 8601, now if None. Raises FileFormatError if something is not plain JSON.
    """
    created = created or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    shape = image_size if isinstance(image_size, int) else list(image_size)
    card: dict[str, Any] = {"name": name, "family": family, "size": size, "image_size": shape, "created": created}
    card |= {"licence": licence, "data": data, "recipe": recipe, "metrics": dict(metrics or {}), "commit": commit, **more}
    card = {key: value for key, value in card.items() if value is not None}
    check_json(card, "card", depth=2)
    return card


def check_card(card: Mapping[str, Any]) -> None:
    """Raises FileFormatError that names what a published model's card lacks."""
    missing = [key for key in REQUIRED if card.get(key) in (None, "")]
    if missing:
        raise FileFormatError(f"the model card lacks {', '.join(missing)}")


def format_card(card: Mapping[str, Any]) -> str:
    """The card for people: one line an entry, nested entries indented; control characters are shown, not obeyed."""
    lines: list[str] = []

    def text(value: Any) -> str:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        return printable(shown)

    def walk(value: Mapping[str, Any], indent: str) -> None:
        width = max((len(text(key)) for key in value), default=0)
        for key, item in value.items():
            if isinstance(item, Mapping):
                lines.append(f"{indent}{text(key)}")
                walk(item, indent + "  ")
            elif isinstance(item, (list, tuple)) and any(isinstance(v, Mapping) for v in item):
                lines.append(f"{indent}{text(key)}")
                lines.extend(f"{indent}  {text(_short(v))}" for v in item)
            elif isinstance(item, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in item):
                lines.append(f"{indent}{text(key):<{width}}  {text(_short(item))}")
            else:
                shown = ", ".join(text(v) for v in item) if isinstance(item, (list, tuple)) else text(item)
                lines.append(f"{indent}{text(key):<{width}}  {shown}")

    walk(card, "")
    return "\n".join(lines)


def _short(value: Any) -> str:
    """One line of a nested value, without quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        between = "; " if any(isinstance(item, Mapping) for item in value) else ", "
        return f"[{between.join(map(_short, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
