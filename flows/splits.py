"""What of a source is to train on and what to evaluate on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from flows.annotated import TRAIN_SHARE, OwnBoxes, own_boxes
from flows.result import Result
from shards import sources, storage
from shards.errors import ShardError
from shards.sources import Source, is_in_share
from shards.sources.candidates import suffix
from shards.sources.junk import is_junk
from shards.sources.parts import part_folders
from shards.sources.rows import is_table

_RANKS = {"train": 0, "val": 1, "test": 2, "pool": 3}  # what is evaluated first
EVALUATIONS = "kNN, linear and few-label evaluation"


class Split(NamedTuple):
    """Which images are trained and evaluated on.

    Attributes:
        parts: by "train" and, where there are labels, "val": inputs of the stage that builds it.
        skipped: what is left out, and why.
        notes: what a user might not expect of what is read, one line each.
        boxed: the boxes that the images bring, if they do.
    """

    parts: dict[str, Result]
    skipped: list[str]
    notes: Sequence[str] = ()
    boxed: OwnBoxes | None = None


def split_scenes(train: int, val: int) -> Split:
    """Procedural scenes: the first ones are trained on, those that follow are evaluated on."""
    parts: dict[str, Result] = {
        "train": {"source": f"scenes:0+{train}"},
        "val": {"source": f"scenes:{train}+{val}"},
    }
    return Split(parts, [])


def split_images(images: str, val: str | None = None, image_root: str | None = None) -> Split:
    """A folder with parts in it, such as ``train`` and ``Testing``, or one source of both.

    Args:
        images: a source, or a folder of parts, perhaps within others; path or URL.
        val: labelled images to evaluate on; None: a part that has classes, or a share of those to
            train on.
        image_root: folder of the images of tables and COCO JSONs.

    Raises:
        ShardError: There are no images.
    """
    folders = _part_folders(images)
    source = folders["train"][0] if folders["train"] else images
    inputs = _inputs(source, image_root)
    # a folder that no source has a use for is refused
    is_used = any("image_root" in _inputs(name, image_root) for name in (source, val or source))
    root = inputs.get("image_root") if is_used else image_root
    content = sources.find(source, image_root=root)
    named = [val] if val else []
    val_candidates = [_inputs(place, image_root) for place in (*named, *folders["val"])]
    boxed = own_boxes(content, inputs, val_candidates)
    skipped = list[str]()
    for name in folders["train"][1:] + folders["pool"]:
        skipped.append(f"the folder {Path(name).name}: {Path(source).name} is trained on")
    if len(content.classes) < 2:
        why = "the images have no labels (no class folders)"
        if content.classes:
            why = f"all images are of one class, {content.classes[0]}: any encoder would be right"
        skipped.append(f"{EVALUATIONS}: {why}")
        return _without_labels(Split({"train": inputs}, skipped, content.notes, boxed))
    candidates = [val] if val else []
    for folder in folders["val"]:
        if _has_classes(folder):
            candidates.append(folder)
        else:
            skipped.append(f"the folder {Path(folder).name}: there are no images with labels in it")
    for name in candidates[1:]:
        skipped.append(f"the folder {Path(name).name}: {Path(candidates[0]).name} is evaluated")
    if candidates:
        val_inputs = _inputs(candidates[0], image_root)
        return Split({"train": inputs, "val": val_inputs}, skipped, content.notes, boxed)
    if not _can_hold_out(content):
        why = "too few images have labels to hold some out; name others by --val"
        return Split({"train": inputs}, [*skipped, f"{EVALUATIONS}: {why}"], content.notes, boxed)
    parts: dict[str, Result] = {
        "train": inputs | {"share": [0, TRAIN_SHARE]},
        "val": inputs | {"share": [TRAIN_SHARE, 1]},
    }
    return Split(parts, skipped, content.notes, boxed)


def _without_labels(split: Split) -> Split:
    """A split of images without labels, which trains on none of those that boxes are scored on.

    Args:
        split: whose boxes may be of a held out share of the images.
    """
    if split.boxed is None:
        return split
    pair = split.boxed.pair
    if pair.train is None or not pair.is_held_out:
        return split
    note = (
        f"{100 * (1 - TRAIN_SHARE):.0f} % of the images are held out, to score on their boxes; "
        "name other annotated images by --coco-train and --coco-val (or --voc-train, --voc-val)"
    )
    return split._replace(parts={"train": pair.train}, notes=[*split.notes, note])


def _inputs(source: str, image_root: str | None) -> Result:
    """The inputs of the stage that builds a source, the folder of its images if it may have one."""
    if image_root is not None and (is_table(source) or suffix(source) == ".json"):
        return {"source": source, "image_root": image_root}
    return {"source": source}


def _can_hold_out(content: Source) -> bool:
    """Whether both shares of a source have images with a class."""
    names = [image.name for image in content.samples if image.label >= 0]
    return all(
        any(is_in_share(name, share) for name in names)
        for share in ((0, TRAIN_SHARE), (TRAIN_SHARE, 1))
    )


def _part_folders(images: str) -> dict[str, list[str]]:
    """The folders of each use, "train", "val" or "pool", the preferred first."""
    place = images.rstrip("/")
    folders = _folders_in(place)
    while len(folders) == 1 and not part_folders(folders):
        place = f"{place}/{folders[0]}"
        folders = _folders_in(place)
    roles = part_folders(folders)
    parts: dict[str, list[str]] = {"train": [], "val": [], "pool": []}
    if "train" in roles.values():
        for name in sorted(roles, key=lambda name: (_RANKS[roles[name]], len(name), name)):
            use = "val" if roles[name] == "test" else roles[name]
            parts[use].append(f"{place}/{name}")
    return parts


def _has_classes(folder: str) -> bool:
    """Whether there are images with classes in a folder."""
    try:
        return bool(sources.find(folder).classes)
    except ShardError:
        return False


def _folders_in(place: str) -> list[str]:
    """The names of the folders in a folder that are no junk; none of what is no folder."""
    root = storage.locate(place)
    if not root.is_dir():
        return []
    names = [path.name for path in root.iterdir() if path.is_dir()]
    return sorted(name for name in names if not is_junk(f"{name}/"))
