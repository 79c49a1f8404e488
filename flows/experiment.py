"""What is asked of the pipeline: frozen values, checked before anything starts.

Their fields are the options of ``care pipeline run`` and of Prefect's form. ``Experiment`` holds
all that decides a result, ``flows.execution.Execution`` what decides none.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from flows.annotated import AnnotatedPair, why_no_boxes
from flows.protocols import PROTOCOLS, Protocol, ProtocolName
from flows.recipes import (
    BYOL,
    OptimizerName,
    RecipeChanges,
    check_objectives,
    check_small_crops,
)
from flows.result import Result
from flows.splits import Split, split_images, split_scenes
from shards import storage
from shards.bounds import (
    BatchSize,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PixelSide,
    PositiveFloat,
    PositiveInt,
)
from shards.errors import Misuse
from shards.image_size import ImageSize, image_size
from shards.misspelt import suggestion
from shards.pixels import Alpha


@dataclass(frozen=True)
class Images:
    """Images to train and to evaluate on.

    Attributes:
        images: class folders, or a flat one, or train beside val or test folders of either kind,
            or other sources; else procedural scenes.
        val: labelled images to evaluate on, where they are not beside those to train on.
        image_root: folder of the images, where images or val is a table or a COCO JSON and they are
            not found around it.
        value_range: values of more than 8 bits that become black and white, LOW,HIGH, or LOW%,HIGH%
            of each image's own; by default decided by the images, see care shards build.
        bands: which bands, counted from 1, become red, green and blue, or gray. A fourth one stays
            a band of its own, for encoders such as resnet18-rgbn.
        alpha: what is done with a band called alpha; auto drops it where it is no transparency.
    """

    images: str | None = None
    val: str | None = None
    image_root: str | None = None
    value_range: str | None = None
    bands: tuple[int, ...] | None = None
    alpha: Alpha = "auto"

    @property
    def pixel_options(self) -> Result:
        """What of these is no default, as options of a build."""
        options: Result = {}
        if self.value_range is not None:
            options["value_range"] = self.value_range
        if self.bands:
            options["bands"] = list(self.bands)
        if self.alpha != "auto":
            options["alpha"] = self.alpha
        return options


@dataclass(frozen=True)
class Training:
    """How encoders are pre-trained.

    Attributes:
        protocol: quick suits hundreds of steps on a CPU and is the default for scenes, photos for
            images; paper has the paper's settings.
        encoder: a name as for care pretrain; by default that of the protocol, like what follows.
        init: what the encoder starts from instead of random weights: a run, a file of weights or
            supervised:NAME, of the same architecture.
        size: of the views and of the evaluations' crops, pixels, or height and width such as
            96x192.
        hidden: hidden width of projectors and predictors (the paper 4096).
        steps: pre-training steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        attention_weight: λ of Eq. 5, by which the attention supervision counts.
        checkpoint_every: steps between checkpoints.
        c_stream: also train the C-stream alone; by default only on scenes.
        objectives: what C-streams learn by, side by side: byol, simsiam, simclr, moco-v1, moco-v2,
            moco-v3, swav, swav-256, barlow-twins, infomin, pirl, pirl-pycontrast, cmc, byol-vit,
            moco-v3-vit. Others than byol are trained by their recipes (docs/objectives.md), where
            lr, momentum and hidden are not asked for.
        t_stream: train both streams of each, or the C-stream alone.
        optimizer: by name, sgd, lars, larc or adamw; by default that of the objective's recipe.
        small_crops: beside the two views of swav, of 96 px where these have 224; by default those
            of its recipe, of swav none, of swav-256 six.
    """

    protocol: ProtocolName | None = None
    encoder: str | None = None
    init: str | None = None
    size: ImageSize | None = None
    hidden: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: BatchSize | None = None
    lr: PositiveFloat | None = None
    momentum: Fraction | None = None
    attention_weight: NonNegativeFloat = 100
    checkpoint_every: PositiveInt | None = None
    c_stream: bool | None = None
    objectives: tuple[str, ...] = (BYOL,)
    t_stream: bool = True
    optimizer: OptimizerName | None = None
    small_crops: NonNegativeInt | None = None

    @property
    def recipe_changes(self) -> RecipeChanges:
        """What of the recipes of other objectives was asked for otherwise."""
        return RecipeChanges(self.optimizer, self.lr, self.momentum, self.hidden, self.small_crops)

    def over(self, protocol: Protocol) -> Protocol:
        """The protocol, changed where something else is asked for."""
        changes = {
            "encoder": self.encoder,
            "size": None if self.size is None else image_size(self.size),
            "hidden": self.hidden,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "momentum": self.momentum,
            "checkpoint_every": self.checkpoint_every,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        return replace(protocol, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Judging:
    """How encoders are judged.

    Attributes:
        baselines: encoders to judge beside, such as supervised:resnet50; by default
            random:ENCODER, with paper none.
        labels: shares of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about, if the protocol is not the paper's.
        evaluate: which evaluations are done, such as knn, linear, finetune, detect, segment and
            attention; by default all that the images allow.
    """

    baselines: list[str] | None = None
    labels: tuple[float, ...] = (0.01, 0.1)
    finetune_steps: PositiveInt = 50
    evaluate: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Detection:
    """Annotated images to train and to score detectors and segmenters on.

    Attributes:
        voc_train: Pascal VOC list, or shards of one, to train detectors on.
        voc_val: the same, to score them on.
        coco_train: COCO JSON, or shards of one, to train detectors on; the scenes have their own.
        coco_val: the same, to score them on.
        detection_size: short side of their images, pixels.
        detection_head: form of the detectors: c4 of a ResNet's stages, fpn of any encoder; by
            default fpn, with paper c4 for Pascal VOC.
        detection_iterations: training steps of the detectors.
        coco_image_root: folder of the images of the COCO JSONs, or of the folders train2017,
            val2017, …, where they are not found around the lists.
        segment_train: images whose pixels have classes to learn from, as for care evaluate segment:
            a VOC list, a folder of images and masks, a COCO JSON with masks or shards of one; the
            scenes have their own.
        segment_val: the same, to score segmenters on.
        segment_iterations: training steps of the segmenters.
    """

    voc_train: str | None = None
    voc_val: str | None = None
    coco_train: str | None = None
    coco_val: str | None = None
    detection_size: PixelSide | None = None
    detection_head: Literal["c4", "fpn"] | None = None
    detection_iterations: PositiveInt | None = None
    coco_image_root: str | None = None
    segment_train: str | None = None
    segment_val: str | None = None
    segment_iterations: PositiveInt | None = None


@dataclass(frozen=True)
class Scenes:
    """Procedural scenes, where no images are given.

    Attributes:
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to evaluate on.
    """

    train_scenes: PositiveInt = 2000
    val_scenes: PositiveInt = 400


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that decides the results of a pipeline.

    Attributes:
        out: folder of all that is made, a path or URL.
        images: to train and to evaluate on.
        training: how encoders are pre-trained.
        judging: how they are judged.
        detection: annotated images.
        scenes: which stand for images.
        seed: of everything random.

    Raises:
        Misuse: Something of it cannot be done.
        ShardError: There are no images where they are said to be.
    """

    out: str
    images: Images = Images()
    training: Training = Training()
    judging: Judging = Judging()
    detection: Detection = Detection()
    scenes: Scenes = Scenes()
    seed: int = 0

    def __post_init__(self) -> None:
        for share in self.judging.labels:
            if not 0 < share <= 1:
                raise Misuse(f"wanted shares of the labels above 0 and up to 1, got {share:g}")
        check_objectives(self.training.objectives)
        check_small_crops(self.training.small_crops, self.training.objectives)
        self._check_streams()
        self._check_detection()
        self._check_folders()
        _ = self.split  # a wrong path is told now
        _ = self.protocol  # and a wrong size

    @property
    def declared_protocol(self) -> Protocol:
        """The protocol before anything else is asked for."""
        name = self.training.protocol or ("photos" if self.images.images else "quick")
        return PROTOCOLS[name]

    @cached_property
    def protocol(self) -> Protocol:
        """The settings of training and judging."""
        return self.training.over(self.declared_protocol)

    @property
    def of_scenes(self) -> bool:
        """Whether procedural scenes stand for images."""
        return not self.images.images

    @property
    def title(self) -> str:
        """The images in words."""
        images = self.images.images
        return Path(images).resolve().name if images else "procedural scenes"

    @property
    def note(self) -> str:
        """What a reader of the results must know of the images."""
        if not self.of_scenes:
            return ""
        return "The images are procedural scenes, rendered by this package, not photographs."

    @cached_property
    def split(self) -> Split:
        """What is trained and evaluated on."""
        if self.images.images:
            return split_images(self.images.images, self.images.val, self.images.image_root)
        return split_scenes(self.scenes.train_scenes, self.scenes.val_scenes)

    @property
    def is_labelled(self) -> bool:
        """Whether there are labelled images to evaluate on."""
        return "val" in self.split.parts

    @property
    def annotated_pairs(self) -> dict[str, AnnotatedPair]:
        """Annotated images by "voc" and "coco": those that are named, or else the images' own."""
        voc = (self.detection.voc_train, self.detection.voc_val)
        coco = (self.detection.coco_train, self.detection.coco_val)
        if self.of_scenes:
            scenes = self.split.parts
            coco = (coco[0] or scenes["train"]["source"], coco[1] or scenes["val"]["source"])
        pairs = dict[str, AnnotatedPair]()
        for name, (train, val) in (("voc", voc), ("coco", coco)):
            if train and val:
                pairs[name] = AnnotatedPair(
                    self._annotated(name, val), self._annotated(name, train)
                )
        boxed = self.split.boxed
        return pairs or ({} if boxed is None else {boxed.form: boxed.pair})

    def _annotated(self, pair: str, source: str) -> Result:
        """What the stage is given that builds a list that is named."""
        inputs: Result = {"source": source}
        if pair == "coco" and self.detection.coco_image_root:
            inputs["image_root"] = self.detection.coco_image_root
        return inputs

    @property
    def segmenter(self) -> Result:
        """Keywords of the segmenters."""
        settings = {**self.protocol.evaluations.get("segment", {})}
        if self.detection.segment_iterations is not None:
            settings["iterations"] = self.detection.segment_iterations
        return settings

    @property
    def has_scenes_masks(self) -> bool:
        """Whether the annotated images are the scenes, whose objects have masks."""
        return self.of_scenes and not (self.detection.coco_train or self.detection.coco_val)

    @property
    def notes(self) -> list[str]:
        """What a user might not expect of how the images are read, one line each."""
        return [f"{self.images.images}: {note}" for note in self.split.notes]

    @property
    def skipped(self) -> list[str]:
        """What is left out whatever the images turn out to be, and why."""
        pairs = self.annotated_pairs
        if not pairs:
            why = why_no_boxes(self.images.images or "")
            return [*self.split.skipped, f"detection and attention: {why}"]
        lines = [*self.split.skipped]
        for name, pair in pairs.items():
            if pair.train is None:
                source = pair.val["source"]
                lines.append(
                    f"detection: {source} is all that has boxes, and nothing of it can be held "
                    f"out; name images to train on and to score, --{name}-train {source} "
                    f"--{name}-val LIST"
                )
        return lines

    @property
    def baselines(self) -> list[str]:
        """Sources of encoders that are judged without being trained."""
        if self.judging.baselines is not None:
            return list(dict.fromkeys(self.judging.baselines))
        return [f"random:{self.protocol.encoder}"] if self.protocol.random_baseline else []

    @property
    def trains_c_stream(self) -> bool:
        """Whether the C-stream is also trained alone."""
        if not self.training.t_stream:
            return True
        asked_for = self.training.c_stream
        return self.of_scenes if asked_for is None else asked_for

    def detector(self, pair: str) -> Result:
        """Keywords of the detector for one of ``annotated_pairs``."""
        settings = {**self.protocol.evaluations.get("detect", {})}
        if pair == "coco":
            settings |= self.protocol.coco_detector
        if self.detection.detection_head is not None:
            settings["head"] = self.detection.detection_head
        if self.detection.detection_size is not None:
            settings["size"] = self.detection.detection_size
        if self.detection.detection_iterations is not None:
            settings["iterations"] = self.detection.detection_iterations
        return settings

    def _check_streams(self) -> None:
        """Refuse an experiment that trains nothing."""
        if self.training.c_stream is False and not self.training.t_stream:
            raise Misuse("wanted a stream to train, got --no-c-stream and --no-t-stream")

    def _check_detection(self) -> None:
        """Refuse annotated images that are not there, or not both to train on and to score."""
        wanted = "wanted annotated images both to train on and to score"
        for train, val in (
            (self.detection.voc_train, self.detection.voc_val),
            (self.detection.coco_train, self.detection.coco_val),
            (self.detection.segment_train, self.detection.segment_val),
        ):
            if bool(train) != bool(val):
                raise Misuse(f"{wanted}, got only {train or val}; give both or none")
            for source in filter(None, (train, val)):
                if not source.startswith("scenes:") and not storage.locate(source).exists():
                    raise Misuse(
                        f"{wanted}, got {source}, which does not exist; check the path"
                        f"{suggestion(source)}"
                    )

    def _check_folders(self) -> None:
        """Refuse results among the images, which would become images, too."""
        images = self.images.images
        if not images:
            return
        inside = f"{storage.locate(self.out).absolute()}/"
        if inside.startswith(f"{storage.locate(images).absolute()}/"):
            wanted = f"wanted another folder for results than that of the images, {images}"
            raise Misuse(f"{wanted}, got {self.out}; they would become images, too")
