"""Tables that name images and their classes: rows become candidates, whose files are looked for."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from shards import objects, storage
from shards.counted import images_that
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.kinds import reason_without_image
from shards.rejects import Reject, Rejection
from shards.sources.candidates import Candidate, Listing, is_elsewhere, is_link, suffix
from shards.sources.columns import Columns, read_columns
from shards.sources.file_names import existing_folder
from shards.sources.junk import is_junk
from shards.sources.links import public_names
from shards.sources.parts import is_generic, part_folders
from shards.sources.rows import Rows, read_rows
from shards.sources.synsets import devkit_synsets, sorted_synsets


def list_table(
    location: Path, *, image_root: Path | None = None, columns: Sequence[str] = ()
) -> Listing:
    """The images that a table names.

    A row has the path of an image, relative to the file, or its URL, and perhaps its class. Names
    may lack their folders and their suffix; such files are looked for below the folder of the
    table, and in folders beside that one whose names say that they hold images.

    Args:
        location: where the table is.
        image_root: the folder of the images, where the user says it.
        columns: the names of the columns of the image and of the class, where the user says them.

    Returns:
        The images; names without a suffix of images, and without an image of that name, are
        rejects.

    Raises:
        ShardError: The file cannot be read as such a table, or none of the images is there.
    """
    files = TableFiles(location, image_root)
    rows = read_rows(location)
    if rows.cells and all(len(row) == 1 and row[0].isdecimal() for row in rows.cells):
        return _list_numbers(location, rows, files)
    table = read_columns(location, rows, files.has, columns, files.place)
    if any(map(is_link, table.names)):
        objects.file_system("https://localhost")  # or what is missing is told now
    synsets = sorted_synsets(location, [name for name in table.classes if name is not None])
    if synsets.names:
        classes = [name and synsets.names[name] for name in table.classes]
        table = table._replace(classes=classes, notes=[*table.notes, *synsets.notes])
    listing = _list_rows(table, files)
    if listing.images and not files.remote and all(image.size < 0 for image in listing.images):
        links = any(is_elsewhere(image.path) for image in listing.images)
        if not links:
            raise nothing_there(location, table.names, files)
    if table.by_id and not listing.images:
        raise nothing_there(location, table.names, files)
    return listing


def _list_rows(table: Columns, files: "TableFiles") -> Listing:
    """The candidates of a table's rows."""
    images = list[Candidate]()
    rejects = list[Rejection]()
    link_names = _link_names(table.names)
    for name, class_name in zip(table.names, table.classes, strict=True):
        if name in link_names:
            images.append(Candidate(name, link_names[name], class_name=class_name))
            continue
        image = files.look_up(name, by_id=table.by_id)
        if isinstance(image, Reject):
            rejects.append(Rejection(image, name))
        else:
            images.append(image._replace(class_name=class_name))
    notes = [*table.notes, *files.notes_on_moved(len(table.names))]
    return Listing(images, rejects, notes, is_table=True, form="a table")


def _link_names(names: Sequence[str]) -> dict[str, str]:
    """The names that links have in a set, by the links."""
    links = list(filter(is_link, names))
    return dict(zip(links, public_names(links), strict=True))


def _list_numbers(location: Path, rows: Rows, files: "TableFiles") -> Listing:
    """The images of a list of numbers alone, a class for each image in the order of their names."""
    numbers = [row[0] for row in rows.cells]
    names = sorted(files.sizes)
    if len(names) != len(numbers):
        raise ShardError(
            f"{location}: wanted an image for each of {len(numbers):,} numbers, got {len(names):,} "
            f"in {files.root}; name their folder by --image-root"
        )
    synsets = devkit_synsets(location, numbers)
    images = [
        Candidate(
            f"{files.root}/{name}",
            name,
            size=files.sizes[name],
            class_name=synsets.names.get(number, number),
        )
        for name, number in zip(names, numbers, strict=True)
    ]
    notes = [
        "the list has numbers alone: they are the classes of the images in the order of their "
        "names",
        *synsets.notes,
    ]
    if not synsets.names:
        notes.append(
            "numbers of ImageNet's devkit are not the positions of the sorted synsets, which "
            "folders and other lists have: with its meta.mat or map_clsloc.txt beside the list, "
            "the classes are synsets"
        )
    return Listing(images, [], notes, is_table=True, form="a list of numbers")


def nothing_there(location: Path, names: Sequence[str], files: "TableFiles") -> ShardError:
    """The error for a table of whose images none is there."""
    return ShardError(
        f"none of the {len(names):,} images that {location} names is there, such as "
        f"{names[0]}; looked for files of that path, name or stem in "
        f"{', '.join([str(files.root), *files.beside])}. Name their folder by --image-root"
    )


class _Place(NamedTuple):
    """A file that a name may mean: its path below a folder, the folder, its size."""

    name: str
    folder: str
    size: int


_Places = dict[str, list[_Place]]


class TableFiles:
    """The images around a table.

    Args:
        location: of the table.
        image_root: their folder, where the user says it.
    """

    def __init__(self, location: Path, image_root: Path | None) -> None:
        self.root = location.parent if image_root is None else existing_folder(image_root)
        self.remote = storage.is_remote(self.root)
        self._alone = image_root is not None
        self._location = location
        self._moved = list[tuple[str, str]]()  # names, and where such an image is

    @property
    def place(self) -> str:
        """Where images are looked for, for messages."""
        return f"in {self.root}" + ("" if self._alone else " and around it")

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The images below the folder, by their paths in it."""
        return _images_below(str(self.root))

    @cached_property
    def beside(self) -> list[str]:
        """Folders beside the table's that may hold its images."""
        above = self._location.absolute().parent.parent
        if self._alone or self.remote or not above.is_dir():
            return []
        names = [path.name for path in above.iterdir() if path.is_dir()]
        likely = [name for name in names if is_generic(name) or part_folders([name])]
        table_folder = self._location.absolute().parent.name
        return [str(above / name) for name in sorted(likely) if name != table_folder]

    @cached_property
    def _places_below(self) -> _Places:
        return _places({str(self.root): self.sizes})

    @cached_property
    def _places_beside(self) -> _Places:
        return _places({folder: _images_below(folder) for folder in self.beside})

    def look_up(self, name: str, *, by_id: bool) -> Candidate | Reject:
        """The image that a table means by a name, or why there is none.

        Args:
            name: as the table has it; no link.
            by_id: whether the names of the table have no suffix.
        """
        if is_junk(name) and not storage.is_remote(name):
            return Reject.JUNK
        candidate = self.direct(name)
        if candidate is None or (candidate.size < 0 and not self.is_trusted(candidate)):
            moved = self.search(name)
            if moved is not None:
                self._moved.append((name, moved.path))
                candidate = moved
        if candidate is not None:
            return candidate
        reason = reason_without_image(suffix(name))
        return Reject.NO_IMAGE if by_id and reason == Reject.OTHER_FILE else reason

    def notes_on_moved(self, count: int) -> list[str]:
        """What is to be said of images that lie elsewhere than the table says.

        Args:
            count: how many images the table has.
        """
        if not self._moved:
            return []
        name, path = self._moved[0]
        return [
            f"{images_that(len(self._moved), 'is', 'are', total=count)} not named as they lie: "
            f"{name} is taken from {path}"
        ]

    def direct(self, name: str) -> Candidate | None:
        """The image of exactly that path or store's URL, None without an image's suffix."""
        if suffix(name) not in SUFFIXES:
            return None
        path = name if storage.is_remote(name) else str(self.root / name)
        return Candidate(path, name, size=_local_size(path))

    def is_trusted(self, candidate: Candidate) -> bool:
        """Whether an image is not looked for: in a store, each look is a request."""
        return storage.is_remote(candidate.path)

    def search(self, name: str) -> Candidate | None:
        """The only image that a name may mean, by its path, its name or its stem."""
        if not name or is_elsewhere(name):
            return None
        path = PurePosixPath(name.replace("\\", "/"))
        stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
        for key in dict.fromkeys((path.name.lower(), stem.lower())):
            places = self._places_below.get(key) or self._places_beside.get(key, [])
            place = _best(path, places)
            if place is not None:
                return Candidate(f"{place.folder}/{place.name}", place.name, size=place.size)
        return None

    def has(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return self.search(name) is not None


def _places(sizes: Mapping[str, Mapping[str, int]]) -> _Places:
    """All images by their names, and by their names without the suffix, in lower case.

    Args:
        sizes: of the images by their paths, of each folder.
    """
    places: _Places = {}
    for folder, sizes_below in sizes.items():
        for name, size in sizes_below.items():
            path = PurePosixPath(name)
            place = _Place(name, folder, size)
            for key in {path.name.lower(), path.stem.lower()}:
                places.setdefault(key, []).append(place)
    return places


def _best(path: PurePosixPath, places: Sequence[_Place]) -> _Place | None:
    """The place whose folders agree most with a path; None if several do equally."""
    scored = dict[int, list[_Place]]()
    for place in places:
        folders = zip(
            reversed(path.parts[:-1]), reversed(PurePosixPath(place.name).parts[:-1]), strict=False
        )
        agreeing = 0
        for ours, theirs in folders:
            if ours.lower() != theirs.lower():
                break
            agreeing += 1
        scored.setdefault(agreeing, []).append(place)
    if not scored:
        return None
    best = scored[max(scored)]
    return best[0] if len(best) == 1 else None


def _images_below(folder: str) -> dict[str, int]:
    """The sizes of the images in a folder at any depth, by their paths in it."""
    return {
        name: size
        for name, size in storage.listing(folder, deep=True).items()
        if suffix(name) in SUFFIXES and not is_junk(name)
    }


def _local_size(path: str) -> int:
    """How many bytes a local file has, or -1 of a URL and of what is no file."""
    return -1 if storage.is_remote(path) else storage.file_size(Path(path))
