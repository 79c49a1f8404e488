"""The images of a table of several classes each: files around it, or the samples of a set."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from shards import reader, storage
from shards.errors import ShardError
from shards.listed_images import ListedImages, ListedSamples, listed_files
from shards.rejects import Reject, Rejection
from shards.sample_names import SampleNames
from shards.sources.candidates import Candidate, is_link
from shards.sources.label_columns import LabelTable, RowLabels, read_label_columns
from shards.sources.links import public_names
from shards.sources.rows import Rows, read_rows
from shards.sources.tables import TableFiles, nothing_there


class LabelledRows(NamedTuple):
    """The rows of a table whose images are there.

    Attributes:
        rows: what the table says of each image.
        images: theirs, in the same order.
        classes: the names of all classes.
        rejects: rows that are left out.
        notes: what a user might not expect, one line each.
    """

    rows: list[RowLabels]
    images: ListedImages
    classes: tuple[str, ...]
    rejects: list[Rejection]
    notes: list[str]


def read_label_table(
    location: Path, *, image_root: str | Path | None = None, columns: Sequence[str] = ()
) -> LabelledRows:
    """Read a table of images and their classes, and look for the images.

    Args:
        location: of the table.
        image_root: the folder of the images, where it is not that of the table, or a shard set that
            has them, or a folder of such sets, of which the one counts that has most of them.
        columns: the names of the columns of the image and of the classes.

    Raises:
        ShardError: It is no such table, or none of its images is there.
    """
    cells = read_rows(location, with_lists=True)
    sets = [] if image_root is None else _sets_at(image_root)
    if sets:
        labelled = _from_sets(location, cells, sets, columns)
    else:
        labelled = _from_files(location, cells, image_root, columns)
    return labelled


def _sets_at(place: str | Path) -> list[reader.ShardSet]:
    """The shard set at a place, or those in the folders there."""
    location = storage.locate(place)
    if (location / "index.json").is_file():
        return [reader.open(place)]
    if not location.is_dir():
        return []
    names = sorted(path.name for path in location.iterdir() if (path / "index.json").is_file())
    return [reader.open(f"{place}/{name}") for name in names]


def _from_files(
    location: Path, cells: Rows, image_root: str | Path | None, columns: Sequence[str]
) -> LabelledRows:
    """The rows whose images are files."""
    files = TableFiles(location, None if image_root is None else storage.locate(image_root))
    table = read_label_columns(location, cells, files.has, columns, files.place)
    links = [row.name for row in table.rows if is_link(row.name)]
    if links:
        raise ShardError(
            f"{location} names images on the web, such as {links[0]}; build a set of them (care "
            "shards build, with --columns and the column of the links) and name it by --image-root"
        )
    images = dict[str, Candidate]()  # by path
    rows = list[RowLabels]()
    rejects = [Rejection(Reject.DUPLICATE, name) for name in table.repeated]
    for row in table.rows:
        image = files.look_up(row.name, by_id=table.by_id)
        reason = image if isinstance(image, Reject) else None
        if isinstance(image, Candidate):
            if image.size < 0 and not files.is_trusted(image):
                reason = Reject.NO_IMAGE
            elif image.path in images:
                reason = Reject.DUPLICATE
            else:
                images[image.path] = image
                rows.append(row)
        if reason is not None:
            rejects.append(Rejection(reason, row.name))
    if not rows:
        raise nothing_there(location, [row.name for row in table.rows], files)
    notes = [*table.notes, *files.notes_on_moved(len(table.rows))]
    return LabelledRows(rows, listed_files([*images.values()]), table.classes, rejects, notes)


def _from_sets(
    location: Path, cells: Rows, sets: Sequence[reader.ShardSet], columns: Sequence[str]
) -> LabelledRows:
    """The rows whose images are samples of the set, of several, that has most of them.

    Raises:
        ShardError: The sets have none of them, or several of one name.
    """
    every = [SampleNames(data) for data in sets]
    places = ", ".join(str(data.path) for data in sets)

    def is_sample(name: str) -> bool:
        return any(names.has(name) for names in every)

    table = read_label_columns(location, cells, is_sample, columns, f"in {places}")
    names_of_rows = _names_in_sets(table)
    counts = [sum(map(names.has, names_of_rows)) for names in every]
    if not any(counts):
        raise ShardError(
            f"none of the {len(table.rows):,} images that {location} names is in {places}: the "
            f"table has {table.rows[0].name}, the set {sets[0].keys[0]}"
        )
    best = counts.index(max(counts))
    return _from_set(location, table, sets[best], every[best])


def _from_set(
    location: Path, table: LabelTable, data: reader.ShardSet, names: SampleNames
) -> LabelledRows:
    """The rows whose images are samples of a set.

    Raises:
        ShardError: It has several of one name.
    """
    numbers = dict[int, RowLabels]()
    rejects = [Rejection(Reject.DUPLICATE, name) for name in table.repeated]
    for row, name in zip(table.rows, _names_in_sets(table), strict=True):
        matches = names.match(name).rows
        if len(matches) > 1:
            first, second = (data.keys[number] for number in matches[:2])
            raise ShardError(
                f"{location} names {name}, but {data.path} has {len(matches)} images of that name, "
                f"such as {first} and {second}; write the folder before it"
            )
        if not matches:
            rejects.append(Rejection(Reject.NO_IMAGE, row.name))
        elif matches[0] in numbers:
            rejects.append(Rejection(Reject.DUPLICATE, row.name))
        else:
            numbers[matches[0]] = row
    images = ListedSamples(data, [*numbers])
    notes = [*table.notes, f"the images are those of {data.path}"]
    return LabelledRows([*numbers.values()], images, table.classes, rejects, notes)


def _names_in_sets(table: LabelTable) -> list[str]:
    """The names of a table's images as sets have them: links without their secrets."""
    links = [row.name for row in table.rows if is_link(row.name)]
    names_of_links = dict(zip(links, public_names(links), strict=True))
    return [names_of_links.get(row.name, row.name) for row in table.rows]
