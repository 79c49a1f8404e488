"""Some images to look at, of whatever holds images: a file, a folder, a list, or a shard set."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from PIL import Image
from shards import images, reader, sources, storage
from shards.errors import ShardError
from shards.fetch import reading
from shards.pixel_rules import decide_rule
from shards.progress import warn
from shards.rejects import RejectError
from shards.sources.candidates import suffix


class NamedImage(NamedTuple):
    """An image and what it is called.

    Attributes:
        name: of its file in the source, of its sample in a set.
        image: RGB, upright.
    """

    name: str
    image: Image.Image


def some_images(place: str | Path, count: int) -> list[NamedImage]:
    """Decode images that are spread evenly over all that a place has.

    Args:
        place: path or URL of an image file, a shard set, or anything that a build takes as its
            source.
        count: how many, or all where there are fewer; those that do not decode are told and
            passed over.

    Raises:
        ShardError: There is no such place, it holds no images, or none of those decodes.
    """
    path = storage.locate(place)
    if suffix(str(place)) in images.SUFFIXES and path.is_file():
        return [NamedImage(path.name, _decode_file(path))]
    if path.is_dir() and "index.json" in storage.listing(place):
        data = reader.open(place)
        return [NamedImage(data.keys[n], data.image(n)) for n in spread(len(data), count)]
    source = sources.find(place, classes=False)
    rule, notes = decide_rule(source.samples)
    for note in notes:
        warn(f"{place}: {note}")
    samples = [source.samples[number] for number in spread(len(source.samples), count)]
    decoded = list[NamedImage]()
    with reading(samples) as read:
        for sample in samples:
            try:
                decoded.append(NamedImage(sample.name, images.decode(read(sample), rule)))
            except RejectError as error:
                warn(f"{sample.name} is passed over: {error}")
    if not decoded:
        raise ShardError(f"none of the {len(samples)} images of {place} that were tried decodes")
    return decoded


def spread(total: int, count: int) -> Sequence[int]:
    """Numbers that are spread evenly over ``total``, the first among them.

    Args:
        total: of what is counted.
        count: how many numbers, at most ``total``.
    """
    count = min(count, total)
    return [number * total // count for number in range(count)]


def _decode_file(path: Path) -> Image.Image:
    """The image of one file.

    Raises:
        ShardError: It cannot be read, or does not decode.
    """
    try:
        return images.decode(storage.read_bytes(path))
    except (OSError, ShardError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ShardError(f"cannot read {path}: {reason}") from error
