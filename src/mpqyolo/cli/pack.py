"""`mpqyolo pack`: a trained run becomes one small file, proven."""

from __future__ import annotations

from pathlib import Path

from mpqyolo.cli.console import Json, Progress, emit, parse_size, say


def pack(
    run: Path,
    /,
    *,
    out: Path,
    photos: Path | None = None,
    image_size: str | None = None,
    name: str | None = None,
    json: Json = False,
) -> int:
    """Pack a trained run into a `.mpqy` file whose size is the claim, and prove that it computes the same.

    The proof: on real photos, the trained network, the numpy reference and the engine give equal integers at every layer.
    A file whose proof fails is not left behind.

    Parameters
    ----------
    run
        A run folder, or one of its checkpoints.
    out
        The file to write.
    photos
        Photos for the proof, if not those that the run was validated on: a folder or a data set.
    image_size
        Side of the network's input in px, or HEIGHTxWIDTH; as in training if not given.
    name
        Name of the model in its card.
    """
    from mpqyolo.cli.info import describe
    from mpqyolo.pack.pack import pack as pack_run

    size = parse_size(image_size)
    side = None if size is None else size[0] if size[0] == size[1] else size
    with Progress("packing", "photos") as progress:
        pack_run(run, out, photos=photos, image_size=side, name=name, progress=progress)
    document = describe(str(out))
    del document["model"]
    if json:
        emit({"file": str(out), **document})
        return 0
    against = f", {document['size_ratio']:.1f} times smaller than {document['reference']}" if document["size_ratio"] else ""
    print(f"{out}: {document['size_bytes']:,} bytes{against}")
    say(f"proven on photos: trained network, reference and engine agree; run it: mpqyolo predict {out} PHOTO --out DIR")
    return 0
