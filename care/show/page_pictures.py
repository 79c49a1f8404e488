"""The pictures that a page shows of a run: files in its directory, with their words."""

import base64
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from PIL import Image
from care.show.maps import sheet_caption
from shards import storage

# bytes of a PNG that is embedded as it is; of a larger one the page has a JPEG: it is to be sent
LARGE = 200_000
JPEG_QUALITY = 88


class PictureKind(NamedTuple):
    """A picture that a run may have.

    Attributes:
        file: its name in the run's directory, a PNG.
        heading: of its section on the page.
        alt: the picture in words, for those who do not see it; ``{encoders}`` are the names of the
            encoders that results are of.
        caption: how it is read, where no file says it.
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
        source: the file as a ``data:`` address.
    """

    heading: str
    alt: str
    caption: str
    source: str


# in the order of the page
KINDS = (
    PictureKind(
        "segmentation.png",
        "What a segmenter sees",
        "A row for each of some images: the image, the classes of its pixels as they are labelled,"
        " and as a segmenter on the trained encoder predicts them",
        "Left an image, in the middle its labels, right the prediction of a segmenter on the"
        " trained encoder. Each class has a colour of its own; white pixels do not count.",
    ),
    PictureKind(
        "maps.png",
        "Where the encoders look",
        "A row of images and, below it, a row of their attention maps for each encoder: {encoders}",
        sheet_caption(),
    ),
    PictureKind(
        "neighbours.png",
        "Nearest neighbours",
        "A row for each of some images: the image itself, then the images whose features are"
        " nearest to its own",
        "Left an image of the set, beside it the others with the most similar features by the"
        " trained encoder, the nearest first: cosine, class, name. A green frame is the image's"
        " class, an orange one another.",
    ),
)


def pictures_of(
    folder: str | Path, names: Collection[str], encoders: Sequence[str]
) -> list[PagePicture]:
    """Read the pictures that a run has.

    Args:
        folder: of the run, or its URL.
        names: of the files in it. A JSON beside a picture, as ``care maps`` leaves one, has its
            ``caption`` and the names of its ``rows``.
        encoders: names of the encoders that its results are of.
    """
    pictures = []
    for kind in KINDS:
        if kind.file not in names:
            continue
        facts: Mapping[str, Any] = {}
        facts_file = str(Path(kind.file).with_suffix(".json"))
        if facts_file in names:
            # of a picture that a command has drawn
            facts = storage.read_json(f"{folder}/{facts_file}")
        rows = dict.fromkeys(facts.get("rows") or encoders)
        alt = kind.alt.format(encoders=", ".join(rows) or "that of the run")
        caption = facts.get("caption") or kind.caption
        source = _embedded(storage.read_bytes(f"{folder}/{kind.file}"))
        pictures.append(PagePicture(kind.heading, alt, caption, source))
    return pictures


def _embedded(png: bytes) -> str:
    """A picture as an address that holds all of it."""
    if len(png) <= LARGE:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    file = BytesIO()
    with Image.open(BytesIO(png)) as picture:
        # letters stay sharp without chroma subsampling
        picture.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
