"""Which folders are classes: not what is around them, not the parts of a data set.

A class is the topmost folder that differs between images. Around the classes there may be folders
that hold everything (``food-101/images``), and parts (``Training`` beside ``Testing``); these are
passed, and that is told.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from shards.sources.parts import Role, is_generic, is_masks, part_folders

_NAMED = 5  # classes and folders that a note names


class Layout(NamedTuple):
    """What the folders of a source mean.

    Attributes:
        class_names: the class of every image, in the order of the images; None: it has none.
        notes: what a user might not expect, one line each.
    """

    class_names: list[str | None]
    notes: list[str]


class Parts(NamedTuple):
    """The parts among the folders of a source.

    Attributes:
        wrapper: the folders around them, with a slash at the end, or "".
        roles: what each is for, by its name; none where the folders are classes.
    """

    wrapper: str
    roles: dict[str, Role]


def parts_among(names: Sequence[str]) -> Parts:
    """The parts that files are in, by their paths in the source."""
    wrapper = _wrapper(names)
    return Parts(wrapper, part_folders(_top_folders(_inside(names, wrapper))))


def read_layout(names: Sequence[str]) -> Layout:
    """Find the classes of images by the folders that they are in.

    Args:
        names: paths of the images in the source, with slashes.

    Returns:
        Their classes.
    """
    wrapper = _wrapper(names)
    inner = _inside(names, wrapper)
    folders = _top_folders(inner)
    notes = list[str]()
    if wrapper and folders:
        notes.append(f"the folder {wrapper} is no class, those in it are")
    roles = part_folders(folders)
    if roles:
        parts = sorted(roles, key=lambda name: (roles[name] != "train", name))
        classes = _classes_in_parts(inner, parts)
        notes.append(_note_of_parts(parts, classes, wrapper))
    elif folders and all(is_generic(name) or is_masks(name) for name in folders):
        classes = [None] * len(names)
        notes.append(
            f"{_listed(folders)}: such folders are no classes; where one holds label maps, "
            "build the others one by one"
        )
    else:
        classes = [_top_folder(name) for name in inner]
    return Layout(classes, notes)


def _wrapper(names: Iterable[str]) -> str:
    """The folders around the classes, such as ``food/images/``, or "".

    They are the only folder of all images, and the only one in that one, down to where there are
    several. Without such a place, they are those whose names say nothing.
    """
    chain = list[str]()
    inner = [name for name in names if "/" in name]
    folders = _top_folders(inner)
    while len(folders) == 1:
        chain += folders
        inner = _inside(inner, f"{folders[0]}/")
        has_images = any("/" not in name for name in inner)
        folders = _top_folders(inner)
        if has_images and len(folders) < 2:
            break
    if len(folders) < 2:
        chain = chain[: _plain_part([*chain, *folders])]
    return "".join(f"{folder}/" for folder in chain)


def _plain_part(chain: Sequence[str]) -> int:
    """How many of some nested folders are around a class.

    They end with the last one whose name says nothing; where that is the innermost, before the
    first one whose name says something.
    """
    plain = [is_generic(folder) or bool(part_folders([folder])) for folder in chain]
    if True in plain and not plain[-1]:
        return len(plain) - plain[::-1].index(True)
    return plain.index(False) if False in plain else len(plain)


def _classes_in_parts(names: Sequence[str], parts: Iterable[str]) -> list[str | None]:
    """The classes of images in parts, where each may have its own folders around the classes.

    Images beside the parts have a class where their folder is called like one in them.
    """
    classes: list[str | None] = [None] * len(names)
    for part in parts:
        rows = [row for row, name in enumerate(names) if name.startswith(f"{part}/")]
        # Kaggle's archives have seg_train/seg_train
        inner = [names[row].removeprefix(f"{part}/").removeprefix(f"{part}/") for row in rows]
        wrapper = _wrapper(inner)
        for row, name in zip(rows, _inside(inner, wrapper), strict=True):
            classes[row] = _top_folder(name)
    of_parts = {*classes} - {None}
    for row, name in enumerate(names):
        folder = name.rpartition("/")[0].rpartition("/")[2]
        if classes[row] is None and folder in of_parts:
            classes[row] = folder
    return classes


def _note_of_parts(parts: Sequence[str], classes: Iterable[str | None], wrapper: str) -> str:
    """What is to be said of a source that holds the parts of a data set."""
    class_names = sorted({name for name in classes if name is not None})
    what = f"the folders in them are ({_listed(class_names)})"
    if not class_names:
        what = "there are no class folders in them"
    return (
        f"{_listed(parts)}: parts, not classes; {what}. This set has the images of all parts; "
        f"for a set of one part, name its folder: {wrapper}{parts[0]}"
    )


def _inside(names: Iterable[str], wrapper: str) -> list[str]:
    """The names as seen from a folder; those elsewhere as if they lay in it by themselves."""
    if not wrapper:
        return [*names]
    return [
        name.removeprefix(wrapper) if name.startswith(wrapper) else name.rpartition("/")[2]
        for name in names
    ]


def _top_folders(names: Iterable[str]) -> list[str]:
    """The first folders of some paths, sorted."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})


def _top_folder(name: str) -> str | None:
    """The first folder of a relative path, or None of a file in no folder."""
    folder, slash, _ = name.partition("/")
    return folder if slash else None


def _listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
