"""`mpqyolo info`: what a model costs, counted, beside the float YOLOv5 of its size."""

from __future__ import annotations

from typing import Any

from mpqyolo.cli.console import Json, emit, parse_size
from mpqyolo.cli.resolve import RandomPolicy, Reference, graph_model, numbered, only_random, resolve
from mpqyolo.core.errors import ConfigError


def info(
    model: str,
    /,
    *,
    classes: int | None = None,
    image_size: str | None = None,
    policy: RandomPolicy = None,
    json: Json = False,
) -> int:
    """What a model costs: parameters, bytes, multiply-accumulates by bits, element-wise work, layer by layer.

    Ratios are against the float YOLOv5 of the same size and classes. The formula is printed with them.

    Parameters
    ----------
    model
        A `.mpqy` file, a run folder or checkpoint, a YOLOv5 `.pt`, or a name (see `mpqyolo models`).
    classes
        How many classes a network with random weights has; 80 if not given.
    image_size
        Side of the network's input in px, or HEIGHTxWIDTH; multiples of 32. As the model says if not given, else 640.
    """
    document = describe(model, classes, parse_size(image_size), policy)
    if json:
        emit(document)
    else:
        _show(document)
    return 0


def describe(
    model: str, classes: int | None = None, size: tuple[int, int] | None = None, policy: str | None = None
) -> dict[str, Any]:
    """The document of `mpqyolo info --json`. size: (height, width) px."""
    from mpqyolo.account.cost import cost
    from mpqyolo.account.yolov5 import MULTIPLES, ratios, yolov5

    ref = resolve(model)
    if ref.kind == "onnx":
        raise ConfigError(f"{model}: the bits of an ONNX file are not counted; give a packed file, a checkpoint or a name")
    if ref.family == "yolov5" or ref.kind == "published":
        only_random(ref, classes=classes)
        if policy is not None:
            raise ConfigError(f"--policy {policy}: {model} is float; leave --policy out")
        yolo_size, count = (ref.size, len(numbered(classes))) if ref.kind == "random" else _published(ref)
        total = yolov5(yolo_size, count, size or (640, 640)).cost()
        about: dict[str, Any] = {"family": "yolov5", "size": yolo_size, "classes": count, "bits": "float32"}
        about["image_size"] = list(size or (640, 640))
    else:
        packed, file_bytes = graph_model(model, size, classes, policy)
        total = cost(packed.graph, file_bytes)
        card = packed.card
        yolo_size = ref.size or str(card.get("size", ""))
        about = {"family": ref.family or card.get("family"), "size": yolo_size, "classes": len(packed.classes)}
        about |= {"bits": {region: list(bits) for region, bits in packed.policy["bits"].items()}, "policy": packed.policy["name"]}
        about |= {"image_size": list(packed.graph.tensors[packed.graph.input].shape[1:]), "card": dict(card)}
    height, width = about["image_size"]
    known = yolo_size in MULTIPLES
    none = dict.fromkeys(("reference", "ops_ratio", "size_ratio", "ops_ratio_elementwise"))
    against = ratios(total, yolo_size, about["classes"], (height, width)) if known else none
    return {"model": model, **about, **total.to_dict(), **against}


def _published(ref: Reference) -> tuple[str, int]:
    from mpqyolo.account.yolov5 import MULTIPLES, yolov5
    from mpqyolo.detector.yolov5_load import open_yolov5

    network, names = open_yolov5(ref.path)
    parameters = network.fused_parameters()
    return next(size for size in MULTIPLES if yolov5(size, len(names)).parameters == parameters), len(names)


def _show(document: dict[str, Any]) -> None:
    from mpqyolo.format.card import format_card

    height, width = document["image_size"]
    print(f"{'layer':<32} {'op':<11} {'bits W/A':>8} {'MACs':>14} {'weight bytes':>12}  output")
    for layer in document["layers"]:
        bits = _bits(layer)
        shape = "x".join(map(str, layer["output_shape"]))
        print(f"{layer['name']:<32} {layer['op']:<11} {bits:>8} {layer['macs']:>14,} {layer['weight_bytes']:>12,}  {shape}")
    print()
    print(
        f"{document['model']}: {document['family']} {document['size']}, {document['classes']} classes, input {height}x{width} px"
    )
    if isinstance(document["bits"], dict):
        found = {
            region: [x for x in document["layers"] if x["weight_bits"] and _region(x) == region] for region in document["bits"]
        }
        regions = ", ".join(f"{region} {' and '.join(dict.fromkeys(map(_bits, layers)))}" for region, layers in found.items())
        print(f"bits (weights/activations): {regions}   policy {document['policy']}")
    print(f"parameters       {document['parameters']:>16,}")
    print(f"size             {document['size_bytes']:>16,} bytes{_times(document['size_ratio'], 'smaller')}")
    for bits, macs in document["macs"].items():
        if macs:
            print(f"MACs at {bits:>2} bits  {macs:>16,}")
    print(f"OPs              {document['ops']:>16,.0f}{_times(document['ops_ratio'], 'fewer')}")
    fewer = _times(document["ops_ratio_elementwise"], "fewer OPs with it")
    print(f"element-wise     {document['elementwise_ops']:>16,}{fewer}")
    if document["reference"]:
        print(f"compared with {document['reference']}")
    print(f"{document['formula']}\nelement-wise: {document['elementwise_rule']}")
    if document.get("card"):
        print("\n" + format_card(document["card"]))


def _bits(layer: dict[str, Any]) -> str:
    return f"{layer['weight_bits'] or '-'}/{layer['activation_bits'] * layer['planes']}"


def _region(layer: dict[str, Any]) -> str:
    return str(layer["name"]).partition(".")[0]


def _times(ratio: float | None, what: str) -> str:
    return f"   {ratio:.1f} times {what}" if ratio else ""
