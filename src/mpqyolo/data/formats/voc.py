"""PASCAL VOC: JPEGImages/, Annotations/*.xml, ImageSets/Main/<split>.txt; also <split>/ folders with photos beside their XML.

VOC coordinates are 1-based and inclusive, so (xmin - 1, ymin - 1, xmax, ymax) are the edges of the box in pixels.
Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from mpqyolo.core.errors import DataError
from mpqyolo.core.photo import is_photo
from mpqyolo.data.faults import Faults
from mpqyolo.data.formats.common import Box, listed_classes, make_item, read_lines, split_names
from mpqyolo.data.sample import Dataset, Item

FLAGS = dict.fromkeys(("", "0", "0.0", "false", "no", "unspecified"), False) | dict.fromkeys(("1", "1.0", "true", "yes"), True)


@dataclass
class _Object:
    line: int
    text: dict[str, str] = field(default_factory=dict)


@dataclass
class _Annotation:
    text: dict[str, str]  # annotation-level fields by path: "filename", "size/width", ...
    objects: list[_Object]


def read_xml(path: Path) -> _Annotation:
    """Parse one annotation. Raises DataError for what is not well-formed; entities are refused, as input is not trusted."""
    found = _Annotation({}, [])
    stack: list[str] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, _: dict[str, str]) -> None:
        stack.append(tag)
        if len(stack) == 2 and tag == "object":
            found.objects.append(_Object(parser.CurrentLineNumber))

    def end(_: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        if not data.strip() or len(stack) < 2:
            return
        if stack[1] == "object":  # a <part> of an object has a name and a box of its own: the path keeps them apart
            fields, key = found.objects[-1].text, "/".join(stack[2:])
        else:
            fields, key = found.text, "/".join(stack[1:])
        fields[key] = fields.get(key, "") + data.strip()

    def entity(*_: object) -> None:
        raise DataError(f"{path}:{parser.CurrentLineNumber}: XML entities are not read; write the text itself")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise DataError(
            f"{path}:{error.lineno}: not well-formed XML ({expat.ErrorString(error.code)}); correct the file"
        ) from None
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as XML ({error}); save it in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the annotation") from None
    return found


@dataclass(frozen=True)
class _Entry:
    """A photo's name without suffix, where its XML is, and which line of which list names it."""

    xml: Path
    photos: Path
    listed: tuple[Path, int] | None


def roots(path: Path) -> list[Path]:
    """Folders with Annotations and JPEGImages, at `path` or up to two levels below it."""
    found = [path / "Annotations", *sorted(path.glob("*/Annotations")), *sorted(path.glob("*/*/Annotations"))]
    return [folder.parent for folder in found if folder.is_dir() and (folder.parent / "JPEGImages").is_dir()]


def recognise(path: Path) -> bool:
    """Whether this is a VOC folder."""
    return path.is_dir() and bool(roots(path) or any(path.glob("*/*.xml")))


def _entries(path: Path, split: str, faults: Faults) -> Iterator[_Entry]:
    for name in split_names(split):
        lists = [(root, root / "ImageSets" / "Main" / f"{name}.txt") for root in roots(path)]
        lists = [(root, file) for root, file in lists if file.is_file()]
        for root, file in lists:
            seen: dict[str, int] = {}
            for number, line in enumerate(read_lines(file), 1):
                if not (photo := line.strip()):
                    continue
                flagged = re.fullmatch(r"(.*\S)\s+(-?1|0)", photo)
                if flagged and not (root / "Annotations" / f"{photo}.xml").is_file():
                    photo = flagged[1]  # lists of one class say whether a photo shows it
                if photo in seen:
                    faults.warning(file, number, f"'{photo}' is listed already on line {seen[photo]}; remove one")
                    continue
                seen[photo] = number
                yield _Entry(root / "Annotations" / f"{photo}.xml", root / "JPEGImages", (file, number))
        if lists:
            return
        if (path / name).is_dir() and any((path / name).glob("*.xml")):
            yield from (_Entry(xml, xml.parent, None) for xml in sorted((path / name).glob("*.xml")))
            return


def available(path: Path) -> list[str]:
    """Names of the splits that the folder has."""
    names = {file.stem for root in roots(path) for file in (root / "ImageSets" / "Main").glob("*.txt")}
    return sorted(names | {xml.parent.name for xml in path.glob("*/*.xml")} - {"Annotations"})


def class_names(path: Path) -> tuple[str, ...]:
    """`classes.txt` if the folder has one, else all names in all annotations, sorted."""
    for folder in (path, *roots(path)):
        if (file := folder / "classes.txt").is_file():
            return listed_classes(file)
    names: set[str] = set()
    found = roots(path)
    for xml in [file for root in found for file in (root / "Annotations").glob("*.xml")] or path.glob("*/*.xml"):
        try:
            names.update(thing.text["name"] for thing in read_xml(xml).objects if "name" in thing.text)
        except DataError:
            continue  # whoever reads that split hears of it
    return tuple(sorted(names))


def read(path: Path, split: str, faults: Faults) -> Dataset | None:
    """Read one split; None if the folder does not have it. What is wrong goes to `faults`."""
    classes = class_names(path)
    index = {name: label for label, name in enumerate(classes)}
    entries = list(_entries(path, split, faults))
    if not entries:
        return None
    items = []
    for entry in entries:
        with faults.caught():
            if entry.listed and not entry.xml.is_file():
                faults.error(*entry.listed, f"annotation {entry.xml} is missing; restore it or remove the line")
            elif (item := _item(entry, index, faults)) is not None:
                items.append(item)
    return Dataset(path.resolve().name, path, split, classes, tuple(items))


def _item(entry: _Entry, index: dict[str, int], faults: Faults) -> Item | None:
    annotation = read_xml(entry.xml)
    boxes = [box for thing in annotation.objects if (box := _box(entry.xml, thing, index, faults))]
    return make_item(_photo(entry, annotation), _size(annotation), boxes, entry.xml, faults)


def _photo(entry: _Entry, annotation: _Annotation) -> Path:
    """`<id>.jpg`; else what <filename> says (its folders are the annotator's, not ours); else the id with another suffix."""
    usual = entry.photos / f"{entry.xml.stem}.jpg"
    if usual.is_file():
        return usual
    named = entry.photos / annotation.text.get("filename", "").replace("\\", "/").rpartition("/")[2]
    if named.is_file():
        return named
    return next((file for file in sorted(entry.photos.glob(f"{entry.xml.stem}.*")) if is_photo(file)), usual)


def _size(annotation: _Annotation) -> tuple[int, int] | None:
    """(width, height), or None where the file has none (some tools write 0)."""
    try:
        width, height = (int(float(annotation.text[f"size/{side}"])) for side in ("width", "height"))
    except (KeyError, ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(xml: Path, thing: _Object, index: dict[str, int], faults: Faults) -> Box | None:
    name = thing.text.get("name")
    if name not in index:
        what = f"unknown class '{name}'; known: {', '.join(index)}" if name else "the object has no <name>; name its class"
        faults.error(xml, thing.line, what)
        return None
    try:
        x1, y1, x2, y2 = (float(thing.text[f"bndbox/{key}"]) for key in ("xmin", "ymin", "xmax", "ymax"))
    except KeyError as error:
        faults.error(xml, thing.line, f"'{name}' has no <{error.args[0]}>; write all four of its sides")
        return None
    except ValueError as error:
        faults.error(xml, thing.line, f"'{name}' has a side that is no number ({error}); correct it")
        return None
    difficult = FLAGS.get((said := thing.text.get("difficult", "")).lower())
    if difficult is None:
        faults.error(xml, thing.line, f"'{name}' has <difficult>{said}</difficult>; write 0 or 1")
        return None
    return Box(index[name], (x1 - 1, y1 - 1, x2, y2), thing.line, difficult, what=f"'{name}'")
