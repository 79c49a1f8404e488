"""Folders that are parts of a data set, such as ``train`` and ``Testing``, and no classes."""

import re
from collections.abc import Collection
from typing import Literal, NamedTuple

Role = Literal["train", "val", "test", "pool"]

_WORDS: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("pred", "prediction", "unlabeled", "unlabelled", "unsup", "extra"), "pool"),
}
# what says nothing of what is to be seen on the images in a folder
_FILLERS = frozenset(
    (
        *("all", "archive", "data", "dataset", "datasets", "files", "folder", "full"),
        *("images", "image", "imgs", "img", "jpeg", "jpegimages", "jpg", "png", "raw"),
        *("photos", "photo", "pics", "pictures", "picture"),
        *("samples", "set", "sets", "split", "subset"),
    )
)
_MASKS = frozenset(
    ("annotations", "groundtruth", "gt", "labels", "label", "mask", "masks", "segmentation")
)
_CAPITAL_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_COMPOUND = re.compile(f"({'|'.join(_WORDS)})({'|'.join(sorted(_FILLERS))})")


class Part(NamedTuple):
    """What the name of a folder says of it.

    Attributes:
        role: what the images are for.
        rest: what else the name says, such as ("seg",) of ``seg_train``; () of ``train_images``.
    """

    role: Role
    rest: tuple[str, ...]


def part_of(name: str) -> Part | None:
    """The part that a folder's name says, in any case and spelling, or None if it says none."""
    words = _words_of(name)
    rest = tuple(word for word in words if word not in _FILLERS)
    for position in (0, -1):
        if rest and rest[position] in _WORDS:
            others = rest[1:] if position == 0 else rest[:-1]
            return Part(_WORDS[rest[position]], others)
    return None


def part_folders(names: Collection[str]) -> dict[str, Role]:
    """Which of some sibling folders are parts.

    They are, if all of them are called so; or if some are to train on and some to evaluate on,
    called alike otherwise, and not more are called anything else.

    Args:
        names: of all folders in a folder that have images in them.

    Returns:
        The roles of the parts by name; none where the folders are classes.
    """
    parts = {name: part_of(name) for name in sorted(names)}
    plain = {name: part.role for name, part in parts.items() if part and not part.rest}
    if len(plain) == len(parts):
        return plain
    for first in parts.values():
        if first is None or first.role != "train":
            continue
        alike = {
            name: part.role for name, part in parts.items() if part and part.rest == first.rest
        }
        roles = plain | alike
        if {"val", "test"} & {*alike.values()} and 2 * len(roles) >= len(parts):
            return roles
    return {}


def is_generic(name: str) -> bool:
    """Whether a folder's name says only that there are images in it."""
    words = _words_of(name)
    return bool(words) and _FILLERS.issuperset(words)


def is_masks(name: str) -> bool:
    """Whether a folder's name says that there are label maps in it."""
    words = _words_of(name)
    return bool(_MASKS.intersection(words)) and (_MASKS | _FILLERS).issuperset(words)


def _words_of(name: str) -> list[str]:
    """The words of a name in lower case, without numbers."""
    words = re.findall(r"[^\W\d_]+", _CAPITAL_INSIDE.sub(" ", name).lower())
    separate = list[str]()
    for word in words:
        compound = _COMPOUND.fullmatch(word)
        separate += compound.groups() if compound else [word]
    return separate
