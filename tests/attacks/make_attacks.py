"""Hostile `.mpqy` files, each with the fault that a reader must name. `python tests/attacks/make_attacks.py FOLDER` writes them.

Most are one edit of a valid file with the checksum made right again, so that the rule itself is what refuses them.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attack_base import Attack, base_model
from attack_damage import damaged
from attack_edits import structured
from attack_text import textual

from mpqyolo.format.writer import assemble, dumps, parts


def attacks() -> list[Attack]:
    """All hostile files; names are unique."""
    model = base_model()
    header, data = parts(model)
    return [*damaged(dumps(model)), *structured(header, data), *textual(header, data)]


def valid_files() -> dict[str, bytes]:
    """Files at the edge of the rules that must be read, so that a reader that refuses everything fails too."""
    header, data = parts(base_model())
    files = {"base": assemble(header, data)}
    files["unknown key on top"] = assemble({**header, "future": {"a": [1, 2.5, None, True, "x"]}}, data)
    files["keys in another order"] = assemble(dict(reversed(header.items())), data)
    files["white space"] = assemble(json.dumps(header, indent=2).encode(), data)
    files["escapes"] = assemble(json.dumps({**header, "classes": ["é", "\U0001f600", 'q"\\/']}, ensure_ascii=True).encode(), data)
    files |= {name: assemble(other, data) for name, other in rewritten(header)}
    nested: Any = 1
    for _ in range(14):
        nested = [nested]
    card = {"deep": nested, "number": -1.5e-300, "integer": 2**63 - 1, "text": "line\nbreak", "none": None, "empty": {}}
    files["card"] = assemble({**header, "card": card}, data)
    files["name of 256 bytes"] = assemble({**header, "classes": ["x" * 256, "é" * 128, " "]}, data)
    return files


def rewritten(header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same graph in other words: what has a default is written, the rest in another order."""
    defaults = {"stride": 1, "shift": 0}
    for kind in ("all that has a default", "details in another order", "roles in another order", "numbers in another notation"):
        other = copy.deepcopy(header)
        for op, name, inputs, details in other["graph"]["nodes"]:
            if kind == "all that has a default" and op == "conv":
                details.update({**defaults, "pad": details["kernel"] // 2, "with": []} | details)
                details |= {"residual_last": details.get("residual_last", 0)} if len(inputs) == 2 else {}
                for i, row in enumerate(details["out"]):
                    row.append(f"{name}.{row[0]}" if i else name)
            elif kind == "details in another order":
                for key in list(details)[:-1]:
                    details[key] = details.pop(key)
            elif kind == "roles in another order" and "with" in details:
                details["with"].reverse()
            elif kind == "numbers in another notation" and op == "requantise":
                details["scale"] = 1.25e-1
        yield kind, other


def main(folder: str) -> None:
    """Writes `attack-NNNN.mpqy`, `valid-NNNN.mpqy` and `names.txt`."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for kind, files in (("attack", [(a.name, a.data) for a in attacks()]), ("valid", list(valid_files().items()))):
        for i, (name, data) in enumerate(files):
            (place / f"{kind}-{i:04}.mpqy").write_bytes(data)
            names.append(f"{kind}-{i:04} {name!r}")
    (place / "names.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
