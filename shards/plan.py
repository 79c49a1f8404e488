"""What a build will do: which image goes into which shard, in which order.

A plan decides the bytes of a set; what writes them, ``write`` and ``commit``, decides nothing. So
shards can be written in any order, by any process, and an interrupted build be continued.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args
from shards import sources, storage
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.images import Validation
from shards.index import SCHEMA
from shards.once import listing_once
from shards.order import permutation
from shards.pixel_rules import Choice, decide_rule
from shards.pixels import FOUR_BANDS, Alpha, PixelRule
from shards.samples import Making
from shards.sources.annotated import read_annotations
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate
from shards.sources.rows import is_table

# what a build leaves in a set's folder, finished or not
_BUILT_FILE = re.compile(
    r"(\.part-)?(\.?shard-\d{6,}\.(tar|json)|samples\.npy|keys\.txt|(annotations|index)\.json)"
    r"|(\.part-)?(\.samples-\d{6,}\.(bin|json)|rejects\.tsv)|\.lease"
)


class Plan(NamedTuple):
    """Everything that decides the bytes of a set.

    Attributes:
        source: all files, with classes and rejects.
        annotations: what an annotated source says, None of any other one and of mere classes.
        shards: the samples of each shard, in order.
        validate: what every image has to pass.
        seed: seed of the order.
        max_side: images with a longer side, in pixels, are made smaller; None: no image is.
        quality: quality of those JPEGs, 1…100.
        digest: digest of all of this.
        min_side: images with a shorter side, in pixels, are left out; None: none is.
        rule: how images become 8 bits and three channels.
        pixel_notes: what a user might not expect of that, one line each.
    """

    source: sources.Source
    annotations: Annotations | None
    shards: list[list[Candidate]]
    validate: Validation
    seed: int
    max_side: int | None
    quality: int
    digest: str
    min_side: int | None = None
    rule: PixelRule = PixelRule()
    pixel_notes: Sequence[str] = ()

    @property
    def making(self) -> Making:
        """What is made of every image."""
        return Making(self.validate, self.max_side, self.min_side, self.quality, self.rule)


@listing_once()
def make_plan(  # noqa: PLR0913 (the options of build)
    src: str | Path,
    *,
    shard_size: int = 1000,
    seed: int = 0,
    share: tuple[float, float] = (0, 1),
    validate: Validation = "decode",
    max_side: int | None = None,
    quality: int = 90,
    classes: bool = True,
    image_root: str | Path | None = None,
    columns: Sequence[str] | None = None,
    hold_out: HoldOut | None = None,
    min_side: int | None = None,
    value_range: str | None = None,
    bands: Sequence[int] | None = None,
    alpha: Alpha = "auto",
) -> Plan:
    """List a source and cut it into shards.

    Args:
        src: a path or a URL, see ``shards.sources.find``.
        shard_size: number of images in a shard, before rejects.
        seed: seed of the order.
        share: which part of the source, see ``shards.sources.find``.
        validate: what every image has to pass, see ``shards.images.check``.
        max_side: images with a longer side, in pixels, are made smaller and JPEG.
        quality: quality of those JPEGs, 1…100.
        classes: whether images have the classes that the source says.
        image_root: the folder of the images of a COCO JSON or a table, where they are not found.
        columns: the names of a table's columns of the image and of the class.
        hold_out: which part of the source, where some images of each class are held out.
        min_side: images with a shorter side, in pixels, are left out.
        value_range: values of more than 8 bits that become black and white, see ``build``.
        bands: which bands become red, green and blue, or gray, and perhaps one more.
        alpha: what is done with a band that is called alpha.

    Returns:
        The plan.

    Raises:
        ShardError: An argument is out of range, there are no images, or annotated ones are to be
            made smaller.
    """
    _check_options(shard_size, max_side, quality, validate)
    annotations = read_annotations(src, image_root=image_root)
    if columns and not is_table(src):
        raise ShardError(
            f"wanted a table as the source with the columns {', '.join(columns)}, got {src}; leave "
            "--columns out, or name the table"
        )
    has_boxes = annotations is not None and not annotations.is_labels
    if has_boxes and max_side:
        raise ShardError(
            f"the boxes of {src} are in pixels of its images, which max_side would make smaller; "
            "leave it out"
        )
    source = sources.find(
        src,
        share=share,
        classes=classes,
        image_root=image_root,
        columns=columns or (),
        hold_out=hold_out,
    )
    return plan_of(
        source,
        annotations=annotations if has_boxes else None,
        shard_size=shard_size,
        seed=seed,
        validate=validate,
        max_side=max_side,
        quality=quality,
        min_side=min_side,
        choice=Choice(value_range, bands or (), alpha),
    )


def plan_of(  # noqa: PLR0913 (the options of a plan)
    source: sources.Source,
    *,
    annotations: Annotations | None = None,
    shard_size: int = 1000,
    seed: int = 0,
    validate: Validation = "decode",
    max_side: int | None = None,
    quality: int = 90,
    min_side: int | None = None,
    choice: Choice | None = None,
) -> Plan:
    """Cut a source that is listed into shards.

    Args:
        source: its samples, classes and rejects.
        annotations: the boxes of its images.
        shard_size: as of ``make_plan``, like what follows.
        seed: seed of the order.
        validate: what every image has to pass.
        max_side: images with a longer side, in pixels, are made smaller and JPEG.
        quality: quality of those JPEGs, 1…100.
        min_side: images with a shorter side, in pixels, are left out.
        choice: what the user says of how images become 8 bits and three channels.

    Returns:
        The plan.

    Raises:
        ShardError: An argument is out of range.
    """
    _check_options(shard_size, max_side, quality, validate)
    # of all images, so that the sets of one source have one rule
    rule, pixel_notes = decide_rule(source.every or source.samples, choice)
    if rule.channels == FOUR_BANDS:
        _check_four_bands(max_side, has_boxes=annotations is not None)
    order = permutation(len(source.samples), seed=seed, stream=0)
    shuffled = [source.samples[number] for number in order]
    starts = range(0, len(shuffled), shard_size)
    options: list[Any] = [seed, shard_size, validate, max_side, quality]
    if min_side is not None:
        options.append({"min_side": min_side})
    document = _pixel_document(source, rule, choice)
    if document:
        options.append(document)
    return Plan(
        source=source._replace(every=()),
        annotations=annotations,
        shards=[shuffled[start : start + shard_size] for start in starts],
        validate=validate,
        seed=seed,
        max_side=max_side,
        quality=quality,
        digest=_digest(source, annotations, options),
        min_side=min_side,
        rule=rule,
        pixel_notes=pixel_notes,
    )


def _pixel_document(
    source: sources.Source, rule: PixelRule, choice: Choice | None
) -> dict[str, Any]:
    """What decides the pixels of a set, {} of usual images by the usual rule.

    It is the rule; but where Python code yields the images, they are not there to decide a rule on
    once the set is finished, and so it is what the user says.
    """
    if not any(image.content for image in source.samples):
        return rule.document()
    usual = Choice()._asdict()
    chosen = (choice or Choice())._asdict()
    return {name: value for name, value in chosen.items() if value != usual[name]}


def _check_options(
    shard_size: int, max_side: int | None, quality: int, validate: Validation
) -> None:
    """A ``ShardError`` if an option of a plan is out of range."""
    smallest = min(shard_size, quality, 1 if max_side is None else max_side)
    if smallest < 1 or quality > 100 or validate not in get_args(Validation):
        raise ShardError(
            "wanted shard_size and max_side from 1, quality from 1 to 100, validate of "
            f"{get_args(Validation)}, got {shard_size}, {max_side}, {quality} and {validate!r}"
        )


def _check_four_bands(max_side: int | None, *, has_boxes: bool) -> None:
    """A ``ShardError`` if four bands are wanted of what cannot have them."""
    if max_side is not None:
        raise ShardError(
            "images of four bands are kept as PNGs, which max_side would make JPEGs of three; leave"
            " it out, or name three bands"
        )
    if has_boxes:
        raise ShardError(
            "detectors see red, green and blue; name three bands for images with boxes"
        )


def _digest(source: sources.Source, annotations: Annotations | None, options: Sequence[Any]) -> str:
    """A digest of everything that decides a set, whose form decides the digests of all sets."""
    files = [[image.name, image.content or image.size, image.label] for image in source.samples]
    decisive = [files, source.classes, source.rejects, *options, SCHEMA]
    if annotations is not None:
        decisive.append(annotations.document)
    if source.hold_out is not None:
        decisive.append(source.hold_out)
    return storage.digest(decisive)


def tar_name(number: int) -> str:
    """The file of a shard in a set's folder."""
    return f"shard-{number:06}.tar"


def record_name(number: int) -> str:
    """The file that says what is in a shard, until the index does."""
    return f".shard-{number:06}.json"


def is_built_file(name: str) -> bool:
    """Whether a file in a set's folder is one that a build may leave there."""
    return _BUILT_FILE.fullmatch(name) is not None


def missing_shards(plan: Plan, names: Collection[str]) -> list[int]:
    """The numbers of the shards that are still to be written.

    Args:
        plan: what the set is built from.
        names: the names in its folder.
    """
    return [
        number
        for number in range(len(plan.shards))
        if tar_name(number) not in names or record_name(number) not in names
    ]
