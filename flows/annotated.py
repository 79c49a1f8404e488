"""The annotated images of a pipeline: named by lists, or boxes that the images bring."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from flows.result import Result
from flows.stages import Needs
from shards import sources, storage
from shards.errors import ShardError
from shards.once import listing_once
from shards.sources import Source, is_in_share
from shards.sources.annotated import read_annotations
from shards.sources.annotations import Annotations

TRAIN_SHARE = 0.8  # of images that have nothing beside them to evaluate on
# what a shard set has that was built of annotated images
_FILES_OF_SET = {"index.json", "annotations.json"}

# the folder of COCO's lists, beside those of its images
_LISTS = "annotations"

Form = Literal["voc", "coco"]


class AnnotatedPair(NamedTuple):
    """Annotated images, as inputs of the stages that build them.

    Attributes:
        val: those that detectors are scored on, and where it is looked whether encoders look at
            objects.
        train: those that detectors are trained on; None where all are needed to be looked at.
    """

    val: Result
    train: Result | None = None

    @property
    def parts(self) -> dict[str, Result]:
        """The inputs by "train", if there are such, and "val"."""
        return {"val": self.val} if self.train is None else {"train": self.train, "val": self.val}

    @property
    def is_held_out(self) -> bool:
        """Whether those to score on are a share of the source of those to train on."""
        return "share" in self.val


class OwnBoxes(NamedTuple):
    """The boxes that the images of a pipeline bring.

    Attributes:
        form: of whose metric they are.
        pair: to train detectors on and to score them.
    """

    form: Form
    pair: AnnotatedPair


def is_built(inputs: Mapping[str, object]) -> bool:
    """Whether a source is a shard set with boxes: it is used as it is, and not built again.

    Args:
        inputs: of the stage that would build it.
    """
    source = str(inputs["source"])
    return not source.startswith("scenes:") and storage.listing(source).keys() >= _FILES_OF_SET


def place_of(pair: str, part: str, inputs: Mapping[str, object]) -> str | Needs:
    """Where a stage finds annotated images: the set itself, or the stage that builds it.

    Args:
        pair: name of the pair.
        part: "train" or "val".
        inputs: of the stage that builds them.
    """
    return str(inputs["source"]) if is_built(inputs) else Needs(f"{pair}-{part}")


@listing_once()
def own_boxes(source: Source, inputs: Result, candidates: Sequence[Result]) -> OwnBoxes | None:
    """The boxes of the images that are trained on, and those to score on.

    Args:
        source: the images that are trained on.
        inputs: of the stage that builds them.
        candidates: inputs of images beside them, the preferred first; those that have boxes are
            scored on. Without such a fifth of the images is, unless they are a set already.

    Returns:
        None where the images have no boxes.
    """
    if not source.has_boxes:
        return None
    annotations = None
    if not is_built(inputs):
        annotations = read_annotations(inputs["source"], image_root=inputs.get("image_root"))
    form = _form(inputs, annotations)
    for val in candidates:
        if _has_boxes(val):
            return OwnBoxes(form, AnnotatedPair(val, inputs))
    low: Result = inputs | {"share": [0, TRAIN_SHARE]}
    high: Result = inputs | {"share": [TRAIN_SHARE, 1]}
    if annotations is not None and _can_hold_out(source, annotations):
        return OwnBoxes(form, AnnotatedPair(high, low))
    return OwnBoxes(form, AnnotatedPair(inputs))


def why_no_boxes(images: str) -> str:
    """Why images have no boxes, with what to do where lists of boxes are beside them.

    Args:
        images: folder of the images, path or URL; "" of scenes.
    """
    lists = _lists_beside(images) if images else {}
    if not lists:
        return "the images have no boxes"
    train, val = lists.get("train", "LIST"), lists.get("val", "LIST")
    return (
        "boxes of lists are used where they are named, such as "
        f"--coco-train {train} --coco-val {val}"
    )


def _lists_beside(images: str) -> dict[str, str]:
    """The first list of "train" and of "val" in COCO's layout, those of them that there are."""
    folder = f"{images.rstrip('/')}/{_LISTS}"
    names = [name for name in storage.listing(folder) if name.startswith("instances_")]
    lists = dict[str, str]()
    for name in sorted(names, reverse=True):
        for part in ("train", "val"):
            if part in name and name.endswith(".json"):
                lists[part] = f"{folder}/{name}"
    return lists


def _form(inputs: Result, annotations: Annotations | None) -> Form:
    """The form of images with boxes: Pascal VOC's, or COCO's; of a set by its own file."""
    if is_built(inputs):
        document = storage.read_json(f"{inputs['source']}/annotations.json")
        return "voc" if document.get("voc") else "coco"
    return "voc" if annotations is not None and annotations.voc else "coco"


def _has_boxes(inputs: Result) -> bool:
    """Whether images have boxes; what is no source of images has none."""
    try:
        return sources.find(inputs["source"], image_root=inputs.get("image_root")).has_boxes
    except ShardError:
        return False


def _can_hold_out(source: Source, annotations: Annotations) -> bool:
    """Whether both shares of a source have images with objects."""
    names = {image.path: image.name for image in source.samples}
    paths = [str(image.path) for image in annotations.images if image.objects]
    with_objects = [names[path] for path in paths if path in names]
    return all(
        any(is_in_share(name, share) for name in with_objects)
        for share in ((0, TRAIN_SHARE), (TRAIN_SHARE, 1))
    )
