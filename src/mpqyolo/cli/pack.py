"""`mpqyolo pack`: a trained run becomes one small file, proven."""

from __future__ import annotations

import shlex
from pathlib import Path

from mpqyolo.cli.console import Json, Progress, emit, parse_size, say
from mpqyolo.core.errors import ConfigError


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

    The proof: on real photos, the trained network folded to integers, the numpy reference and the engine agree at every layer.
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
    if not run.exists():
        raise ConfigError(
            f"{run}: there is no such run folder or checkpoint; models that come with the package are packed already"
        )
    from mpqyolo.pack.pack import pack as pack_run

    size = parse_size(image_size)
    side = None if size is None else size[0] if size[0] == size[1] else size
    with Progress("packing", "photos") as progress:
        packed = pack_run(run, out, photos=photos, image_size=side, name=name, progress=progress)
    proof, against = packed.proof, packed.ratios
    if json:
        words = {**proof._asdict(), "from": packed.photos}
        emit({"file": str(out), "size_bytes": packed.size_bytes, "claim_bytes": packed.claim, "proof": words, **against}
             | {"notes": packed.notes})  # fmt: skip
        return 0
    smaller = f", {against['size_ratio']:.1f} times smaller than {against['reference']}" if against else ""
    print(f"{out}: {packed.size_bytes:,} bytes{smaller}")
    equal = f"{proof.tensors} tensors on each of {proof.photos} photos"
    for note in packed.notes:
        say(note)
    say(f"proven: folded network, reference and engine ({proof.isa}) have equal integers in {equal} ({packed.photos})")
    say(f"next: mpqyolo predict {shlex.quote(str(out))} PHOTO --out FOLDER")
    return 0
