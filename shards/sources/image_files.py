r"""Where the images of an annotated list are, which tools name as they lie on other machines.

A list says ``images\1.jpg``, ``/data/upload/1/1.jpg`` or ``1.jpg``; the file is beside the list,
in a folder beside it, or in one of the folders that tools write. All names are read alike: the
reading, a folder and a number of leading parts that are left out, that finds most comes first.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from shards import storage
from shards.counted import images_that
from shards.rejects import Reject, Rejection
from shards.sources.file_names import Looker, existing_folder, is_file, name_variants

# what tools put before or behind the name of the part in the name of a list
_PREFIX = re.compile(
    r"^(instances|person_keypoints|captions|panoptic|stuff|image_info|annotations|labels|coco)[_-]"
)
_SUFFIX = re.compile(r"[_.-](annotations|instances|coco|labels)$")
_SAMPLE = 32  # names by which readings are compared
_REMOTE_SAMPLE = 3  # each is a request there


class FoundFiles(NamedTuple):
    """Where the images of a list are.

    Attributes:
        files: the file of each name, or None.
        rejects: names that have none, or one that another name has as well.
        folders: where was looked.
        notes: what a user might not expect.
    """

    files: list[Path | None]
    rejects: list[Rejection]
    folders: list[Path]
    notes: list[str]


class _Reading(NamedTuple):
    """A way to understand names: a folder, and which of a name's variants."""

    folder: Path
    level: int


def find_files(path: Path, names: Sequence[str], image_root: Path | None = None) -> FoundFiles:
    """Look for the images of a list.

    Args:
        path: path of the list.
        names: the images as it names them.
        image_root: their folder, or that of the folders of all parts, where the user says it;
            nothing is looked for elsewhere.

    Returns:
        The files that are there.
    """
    if image_root is None:
        usual, others = _usual_folders(path), _other_folders(path)
    else:
        usual, others = _folders_in_root(existing_folder(image_root).absolute(), path), []
    files = [_first_file(folder / name for folder in usual) for name in names]
    missing = [number for number, file in enumerate(files) if file is None]
    folders = list(dict.fromkeys([*usual, *others]))
    looker = Looker()
    readings = _readings([names[number] for number in missing], folders, looker)
    usual_files = {file for file in files if file is not None}
    claims = dict[Path, str]()
    shared = set[Path]()
    for number in missing:
        file = _read_name(names[number], readings, looker)
        if file in usual_files:  # another name's
            file = None
        elif file is not None and claims.setdefault(file, names[number]) != names[number]:
            shared.add(file)
        files[number] = file
    rejects = list[Rejection]()
    for number in missing:
        file = files[number]
        if file is None:
            rejects.append(Rejection(Reject.NO_IMAGE, names[number]))
        elif file in shared:
            rejects.append(Rejection(Reject.SHARED_FILE, names[number]))
            files[number] = None
    notes = _notes_on_lost(names, files, folders)
    if image_root is None:
        notes += _notes_on_choice(names, files, missing)
    return FoundFiles(files, rejects, folders, notes)


def list_folders(folders: Sequence[Path]) -> str:
    """Folders as a part of a message, such as ``/data/photos: images, images/default``."""
    if len(folders) == 1:
        return str(folders[0])
    common = Path(os.path.commonpath(folders))
    names = [str(folder.relative_to(common)) for folder in folders]
    return f"{common}: {', '.join(names)}"


def _part(path: Path) -> str:
    """The part that a list is of, train2017 of instances_train2017.json."""
    return _SUFFIX.sub("", _PREFIX.sub("", path.stem))


def _usual_folders(path: Path) -> list[Path]:
    """Where images are looked for first, each name for itself."""
    list_folder = path.absolute().parent
    part = path.stem.removeprefix("instances_")
    return [list_folder, list_folder / "images", list_folder.parent / part]


def _folders_in_root(root: Path, path: Path) -> list[Path]:
    """Where images are in a folder that the user names, perhaps for the lists of several parts."""
    inside = [part for name in (_part(path), "default") for part in (name, f"images/{name}")]
    return [root, *(root / name for name in dict.fromkeys((*inside, "images")))]


def _other_folders(path: Path) -> list[Path]:
    """Where tools put images besides, seen from a list."""
    list_folder = path.absolute().parent
    above = list_folder.parent
    part = _part(path)
    parts = dict.fromkeys([part, part.rstrip("0123456789_-") or part])
    folders = list[Path]()
    for name in parts:
        folders += [above / "images" / name, above / name, above / name / "images"]
        folders += [list_folder / name, list_folder / "images" / name]
    folders += [above / "images", above / "images" / "default", above]
    folders += [list_folder / "data", above / "data", list_folder / "images" / "default"]
    folders += [list_folder / "JPEGImages", above / "JPEGImages"]
    return folders


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if is_file(path)), None)


def _readings(names: Sequence[str], folders: Sequence[Path], looker: Looker) -> list[_Reading]:
    """The readings that find some of the names, the best one first."""
    if not names:
        return []
    size = _REMOTE_SAMPLE if storage.is_remote(folders[0]) else _SAMPLE
    sample = [name_variants(name) for name in names[:: max(1, len(names) // size)]]
    scored = list[tuple[int, int, int, _Reading]]()
    for level in range(1, max(map(len, sample))):
        for position, folder in enumerate(folders):
            paths = [folder / names[level] for names in sample if level < len(names)]
            hits = sum(looker.file_at(path) is not None for path in paths)
            if hits:
                scored.append((-hits, level, position, _Reading(folder, level)))
    return [reading for *_, reading in sorted(scored)]


def _read_name(name: str, readings: Sequence[_Reading], looker: Looker) -> Path | None:
    """The file of a name by the first reading that finds one."""
    variants = name_variants(name)
    paths = [
        reading.folder / variants[reading.level]
        for reading in readings
        if reading.level < len(variants)
    ]
    exact = _first_file(paths)
    if exact is not None:
        return exact
    return next(filter(None, map(looker.file_at, paths)), None)


def _notes_on_choice(
    names: Sequence[str], files: Sequence[Path | None], missing: Sequence[int]
) -> list[str]:
    """What is to be said of images that are not where they are looked for first."""
    elsewhere = [number for number in missing if files[number] is not None]
    if not elsewhere:
        return []
    name, file = names[elsewhere[0]], files[elsewhere[0]]
    return [
        f"{images_that(len(elsewhere), 'is', 'are')} not where the list has them: "
        f"{name} is taken from {file}; "
        "if that is another image, name the folder by --image-root"
    ]


def _notes_on_lost(
    names: Sequence[str], files: Sequence[Path | None], folders: Sequence[Path]
) -> list[str]:
    """What is to be said of images that are not found."""
    lost = [name for name, file in zip(names, files, strict=True) if file is None]
    if not lost:
        return []
    return [
        f"{images_that(len(lost), 'was', 'were', total=len(names))} not found, such as {lost[0]}; "
        f"looked in {list_folders(folders)}"
    ]
