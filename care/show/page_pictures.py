"""The pictures that a page shows of a run: files in its directory, with their words."""

import base64
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple
from upath import UPath
from care.show.maps import SCALE
from shards import storage


class PictureKind(NamedTuple):
    """A picture that a run may have.

    Attributes:
        file: its name in the run's directory, a PNG.
        heading: of its section on the page.
        alt: the picture in words, for those who do not see it; ``{encoders}`` are the names of the
            encoders that results are of.
        caption: how it is read.
    """

    file: str
    heading: str
    alt: str
    caption: str


class PagePicture(NamedTuple):
    """A picture as the page has it.

    Attributes:
        heading: of its section.
        alt: the picture in words.
        caption: how it is read.
        content: the PNG as base64.
    """

    heading: str
    alt: str
    caption: str
    content: str


# in the order of the page
KINDS = (
    PictureKind(
        "maps.png",
        "Where the encoders look",
        "A row of images and, below it, a row of their attention maps for each encoder: {encoders}",
        "Grad-CAM of the label-free score ½‖features‖² at the last stage, one colour scale for all"
        f" rows: blue 0, red {SCALE} times the average pixel.",
    ),
    PictureKind(
        "neighbours.png",
        "Nearest neighbours",
        "A row for each of some images: the image itself, then the images whose features are"
        " nearest to its own",
        "Left an image of the set, beside it those with the most similar features by the trained"
        " encoder (cosine), the nearest first.",
    ),
)


def pictures_of(
    folder: Path | UPath, names: Collection[str], encoders: Sequence[str]
) -> list[PagePicture]:
    """Read the pictures that a run has.

    Args:
        folder: of the run, perhaps in an object store.
        names: of the files in it.
        encoders: names of the encoders that its results are of.
    """
    described = ", ".join(dict.fromkeys(encoders)) or "that of the run"
    pictures = []
    for kind in KINDS:
        if kind.file in names:
            content = base64.b64encode(storage.read_bytes(folder / kind.file)).decode()
            alt = kind.alt.format(encoders=described)
            pictures.append(PagePicture(kind.heading, alt, kind.caption, content))
    return pictures
