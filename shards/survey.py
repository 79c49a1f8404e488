"""What a build would read, before it is built: what was recognised, and a look at some images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from PIL import Image
from shards.boxes import Picture, make_picture
from shards.fetch import reading
from shards.images import decode, decode_bands
from shards.plan import Plan
from shards.rejects import NO_IMAGES, RejectError, group_by_reason
from shards.sources.annotations import Annotations
from shards.sources.candidates import Candidate
from shards.write import make_sample

LOOKS = 64  # images that are decoded, of each class about as many


class Look(NamedTuple):
    """One image that was looked at.

    Attributes:
        sample: which one.
        class_name: its class, or "".
        image: its pixels as a network will have them, or None if it is rejected.
        reason: why it is rejected, or "".
        picture: its boxes, where the source has some.
    """

    sample: Candidate
    class_name: str
    image: Image.Image | None
    reason: str
    picture: Picture | None


class Survey(NamedTuple):
    """What would become a set.

    Attributes:
        form: what the source was recognised as, in words.
        images: how many may become samples.
        classes: how many have each class, by its name.
        unclassified: how many have none.
        boxes: how many boxes of each class count, and "left out: …" by reason; {} without boxes.
        rejects: names of what is left out unread, by reason.
        notes: what a user might not expect, one line each.
        looks: the images that were looked at.
    """

    form: str
    images: int
    classes: dict[str, int]
    unclassified: int
    boxes: dict[str, int]
    rejects: dict[str, list[str]]
    notes: Sequence[str]
    looks: list[Look]

    @property
    def lost(self) -> int:
        """How many images are left out, of files that were meant as images."""
        return sum(len(names) for reason, names in self.rejects.items() if reason not in NO_IMAGES)


def survey(plan: Plan) -> Survey:
    """Look at a source before it is built.

    Args:
        plan: of the build.

    Returns:
        What there is.

    Raises:
        ShardError: A file cannot be read, or an object store fails.
    """
    classes = plan.source.classes
    labels = Counter(image.label for image in plan.source.samples)
    pictures = dict[Path, Picture]()
    boxes = dict[str, int]()
    if plan.annotations is not None:
        pictures, boxes = _boxes_of(plan.annotations)
    return Survey(
        form=plan.source.form,
        images=len(plan.source.samples),
        classes={name: labels[number] for number, name in enumerate(classes)},
        unclassified=labels[-1],
        boxes=boxes,
        rejects=group_by_reason(plan.source.rejects),
        notes=[*plan.source.notes, *plan.pixel_notes],
        looks=_look_at(_draw(plan, LOOKS), plan, pictures),
    )


def _boxes_of(annotations: Annotations) -> tuple[dict[Path, Picture], dict[str, int]]:
    """The boxes of a list by image, and how many there are."""
    classes = [*dict.fromkeys(annotations.classes)]
    labels = {name: number for number, name in enumerate(classes)}
    pictures = dict[Path, Picture]()
    counts = Counter[str]()
    reasons = Counter[str]()
    for image in annotations.images:
        picture, rejects = make_picture(image, labels)
        pictures[image.path] = picture
        counts.update(classes[label] for label in picture.labels)
        reasons.update(f"left out: {reason}" for reason, _ in rejects)
    by_class = {name: counts[name] for name in classes if counts[name]}
    return pictures, by_class | dict(sorted(reasons.items()))


def _draw(plan: Plan, count: int) -> list[Candidate]:
    """Some samples, one class after the other, each drawn at random by the seed of the build."""
    queues = dict[int, list[Candidate]]()
    for shard in plan.shards:
        for sample in shard:
            queue = queues.setdefault(sample.label, [])
            if len(queue) < count:
                queue.append(sample)
    drawn = list[Candidate]()
    for turn in range(count):
        for label in sorted(queues):
            if turn < len(queues[label]) and len(drawn) < count:
                drawn.append(queues[label][turn])
    return sorted(drawn, key=_by_class)


def _by_class(sample: Candidate) -> tuple[bool, int, str]:
    """Orders samples by class, those without one last, then by name."""
    return sample.label < 0, sample.label, sample.name


def _look_at(
    samples: Sequence[Candidate], plan: Plan, pictures: Mapping[Path, Picture]
) -> list[Look]:
    """Read and decode images as the build and the training do.

    Args:
        samples: the images.
        plan: of the build.
        pictures: their boxes, where there are some.
    """
    looks = list[Look]()
    with reading(samples) as read:
        for sample in samples:
            class_name = plan.source.classes[sample.label] if sample.label >= 0 else ""
            picture = pictures.get(Path(sample.path))
            try:
                image = _decoded(make_sample(sample, read(sample), plan).data, plan)
            except RejectError as error:
                looks.append(Look(sample, class_name, None, str(error.reason), picture))
            else:
                looks.append(Look(sample, class_name, image, "", picture))
    return looks


def _decoded(data: bytes, plan: Plan) -> Image.Image:
    """A sample as people see it: of four bands the first three."""
    if plan.rule.channels == 3:
        return decode(data)
    return decode_bands(data).convert("RGB")
