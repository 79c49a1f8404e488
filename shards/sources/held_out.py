"""Which images of a source are held out to evaluate on: the same share of every class.

Which they are is decided by their names alone, not by a seed: however often a set is built, in
whichever order, no image of ``val`` comes into ``train``.
"""

import hashlib
import os
from collections.abc import Sequence
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.sources.candidates import Candidate


def samples_of_part(samples: Sequence[Candidate], hold_out: HoldOut) -> list[Candidate]:
    """The samples of one part of a source.

    Of a class of two images and more, each part has one at least; of a class of one image, train
    has it. Images without a class count as a class of their own.

    Args:
        samples: all of the source, with labels.
        hold_out: the part.

    Returns:
        Its samples, in their order.

    Raises:
        ShardError: The share is out of range, or there is nothing to hold out.
    """
    share = hold_out.val_share
    if not 0 < share < 1:
        raise ShardError(f"wanted a share to hold out above 0 and below 1, got {share:g}")
    by_label = dict[int, list[Candidate]]()
    for image in sorted(samples, key=_rank):
        by_label.setdefault(image.label, []).append(image)
    held_out = set[str]()
    for images in by_label.values():
        count = min(max(round(share * len(images)), 1), len(images) - 1)
        held_out |= {image.name for image in images[:count]}
    if not held_out:
        raise ShardError(
            f"wanted images to hold out, got {len(samples):,} of which no two have the same class; "
            "check what are classes"
        )
    wanted = hold_out.part == "val"
    return [image for image in samples if (image.name in held_out) == wanted]


def single_classes(samples: Sequence[Candidate], classes: Sequence[str]) -> list[str]:
    """The classes that have one image, none of which is held out."""
    counts = [0] * len(classes)
    for image in samples:
        if image.label >= 0:
            counts[image.label] += 1
    return [name for name, count in zip(classes, counts, strict=True) if count == 1]


def _rank(image: Candidate) -> bytes:
    """Where an image is in an order that is as good as random."""
    return hashlib.sha256(os.fsencode(image.name)).digest()
