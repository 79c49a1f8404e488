"""The table of evaluations: which encoders each judges, on what, and by what settings.

A new evaluation is told in three places: its function in a file of ``care/evaluate``, its line in
``care/evaluate/__init__.py``, and its line in ``EVALUATIONS``. The pipeline's stages, the flows of
single stages, ``care evaluate`` and what ``--refresh`` takes are read off this table.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from flows.annotated import place_of
from flows.experiment import Experiment
from flows.facts import Facts
from flows.result import Result
from flows.stages import Needs
from flows.verbs import places_of

SETS: Result = {"train": Needs("train"), "val": Needs("val")}
TRIALS = 3  # of fine-tuning on few labels, each with labels of its own


class Case(NamedTuple):
    """One task by which each encoder is judged.

    Attributes:
        name: the stage's, but for the encoder.
        inputs: of the work, but for the encoder.
        group: another name that ``--refresh`` takes for its stages.
    """

    name: str
    inputs: Result
    group: str = ""


class EvaluationKind(NamedTuple):
    """A line of the table.

    Attributes:
        kind: name of the function in ``care.evaluate``, or of a work of its own.
        title: how a list of all evaluations calls it.
        cases: the tasks that there are for an experiment.
        rank: the smaller, the longer it takes: what is long is started first.
        on_features: whether it reads the features that a stage before has extracted.
        of_ablations: whether it also judges an encoder that is there for comparison alone.
        trials: seeds of ``care evaluate``, where no other number is asked for.
        by_processes: whether several processes can train together.
        data: what its data may be, in words; "" where the inputs by which they are found say it.
        example: what follows ``care evaluate``'s name of it, in its help; "" where there is no
            such command.
    """

    kind: str
    title: str
    cases: Callable[["EvaluationKind", Experiment, Facts], Iterable[Case]]
    rank: int
    on_features: bool = False
    of_ablations: bool = True
    trials: int = 1
    by_processes: bool = False
    data: str = ""
    example: str = ""

    def hidden_parameters(self) -> set[str]:
        """Keywords of the function that are neither options nor in a form."""
        hidden = {"cache", "rows", "keep_every", "source"}
        if not places_of(self.kind):
            hidden.add("device")  # which is the encoder's
        return hidden


def on_labels(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """Where there are labels: train's are learned from, val's are to be predicted."""
    if experiment.is_labelled:
        protocol = experiment.protocol
        settings = protocol.evaluations.get(line.kind, {})
        yield Case(line.kind, {"size": protocol.size, **SETS, **settings})


def on_few_labels(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """For each share of train's labels that is enough."""
    protocol = experiment.protocol
    for share, count in facts.tuned_shares.items():
        inputs: Result = {"size": protocol.size, "fraction": share, "trials": line.trials, **SETS}
        inputs |= protocol.evaluations.get(line.kind, {})
        if protocol.short_finetuning:
            batch_size = min(inputs["batch_size"], count)
            epochs = round(experiment.judging.finetune_steps * batch_size / count)
            inputs["epochs"] = [max(epochs, 1)]
        # the task is named by the share that it is: of few labels each class has one at least
        yield Case(f"{line.kind}-{share:g}", inputs)


def on_boxes(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """For each pair of annotated sets."""
    for pair, images in experiment.annotated_pairs.items():
        if images.train is not None:
            sets = {part: place_of(pair, part, inputs) for part, inputs in images.parts.items()}
            yield Case(pair, {**sets, **experiment.detector(pair)}, group=pair)


def on_labelled_pixels(
    line: EvaluationKind, experiment: Experiment, facts: Facts
) -> Iterator[Case]:
    """On the pair of sets whose pixels have classes: files of the user's, or the scenes."""
    settings = experiment.segmenter
    train, val = experiment.detection.segment_train, experiment.detection.segment_val
    if train and val:
        yield Case(line.kind, {"train": train, "val": val, **settings})
    elif experiment.has_scenes_masks:
        sets = {"train": Needs("coco-train"), "val": Needs("coco-val")}
        yield Case(line.kind, {**sets, **settings})


def on_objects(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """On the annotated images that detectors are scored on, or that are there for this alone."""
    pairs = experiment.annotated_pairs
    for pair, images in pairs.items():
        name = line.kind if len(pairs) == 1 else f"{line.kind}-{pair}"
        val = place_of(pair, "val", images.val)
        yield Case(name, {"val": val, "size": experiment.protocol.size}, group=pair)


def on_any_images(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """On the images to evaluate on or, where there are none, on those that are trained on."""
    images = Needs("val" if experiment.is_labelled else "train")
    settings = experiment.protocol.evaluations.get(line.kind, {})
    yield Case(line.kind, {"size": experiment.protocol.size, "val": images, **settings})


def by_command_only(line: EvaluationKind, experiment: Experiment, facts: Facts) -> Iterator[Case]:
    """Nowhere in a pipeline: ``care evaluate`` and the flow of its own do it."""
    yield from ()


EVALUATIONS = (
    EvaluationKind(
        "knn",
        "kNN",
        on_labels,
        rank=4,
        on_features=True,
        example="demo/pretrain random:resnet18-small-half --train demo/train --val demo/val",
    ),
    EvaluationKind(
        "linear",
        "linear",
        on_labels,
        rank=3,
        on_features=True,
        example="runs/r50 supervised:resnet50 --train sets/train --val sets/val",
    ),
    EvaluationKind(
        "finetune",
        "few labels",
        on_few_labels,
        rank=2,
        of_ablations=False,
        trials=TRIALS,
        example="demo/pretrain --train demo/train --val demo/val --fraction 0.1 --batch-size 32",
    ),
    EvaluationKind(
        "detect",
        "detection",
        on_boxes,
        rank=1,
        of_ablations=False,
        by_processes=True,
        example="runs/r50 --train VOC2007/ImageSets/Main/trainval.txt"
        " --val VOC2007/ImageSets/Main/test.txt",
    ),
    EvaluationKind(
        "segment",
        "segmentation",
        on_labelled_pixels,
        rank=2,
        of_ablations=False,
        by_processes=True,
        data="VOC list (ImageSets/Segmentation/….txt), Cityscapes' leftImg8bit/train, folder of"
        " images and masks, COCO JSON with masks, or shard set of one",
        example="runs/r50 --train VOC2012/ImageSets/Segmentation/trainaug.txt"
        " --val VOC2012/ImageSets/Segmentation/val.txt",
    ),
    EvaluationKind(
        "multilabel",
        "several labels",
        by_command_only,
        rank=3,
        example="runs/r50 --train VOC2007/ImageSets/Main/trainval.txt"
        " --val VOC2007/ImageSets/Main/test.txt",
    ),
    EvaluationKind(
        "quality",
        "label-free quality",
        on_any_images,
        rank=5,
        example="runs/r50/checkpoints/step-* --val sets/val",
    ),
    EvaluationKind(
        "attention",
        "attention",
        on_objects,
        rank=5,
        example="runs/r50 random:resnet50 --val VOC2007/ImageSets/Main/test.txt",
    ),
)
# those that have a function in ``care.evaluate``: ``care evaluate`` and a flow of its own do it
JUDGED = tuple(line for line in EVALUATIONS if line.example)
# what the command line says of ``care evaluate``
ABOUT = (
    f"Judge encoders: {', '.join(line.title for line in JUDGED)}; random:NAME and supervised:NAME"
    " are baselines. Interrupted, the same command continues."
)
