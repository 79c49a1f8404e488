"""The protocols of the pipeline: how an encoder is trained and judged, unless asked otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from flows.result import Result
from shards.image_size import ImageSize

ProtocolName = Literal["quick", "photos", "paper"]


@dataclass(frozen=True)
class Protocol:
    """How an encoder is trained and judged; changed by ``dataclasses.replace``.

    Attributes:
        encoder: a name for ``care.build_encoder``.
        size: of the views and of the evaluations' crops, pixels, or height and width such as
            96x192.
        hidden: hidden width of projectors and predictors.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        momentum_limit: the largest that another objective's recipe may have: 0.999 of MoCo is for
            hundreds of thousands of steps.
        checkpoint_every: steps between checkpoints.
        steps: pre-training steps; None: as many as ``epochs`` need.
        epochs: passes over the images, where there are no ``steps``.
        warmup_divisor: the learning rate rises in one of so many steps.
        recipe_warmup: whether another objective's recipe says how many epochs it rises in.
        views: fields of ``care.train.View`` that differ from the paper's, as JSON.
        evaluations: by the name of an evaluation: its keywords that differ from their defaults.
        coco_detector: keywords of the detector that differ once more on COCO.
        random_baseline: whether a random initialisation is judged, unless baselines are asked for.
        short_finetuning: whether fine-tuning takes as few steps as are asked for, not the recipe's.
    """

    encoder: str
    size: ImageSize
    hidden: int
    batch_size: int
    lr: float
    momentum: float
    checkpoint_every: int
    momentum_limit: float = 0.99
    steps: int | None = None
    epochs: int | None = None
    warmup_divisor: int = 10
    recipe_warmup: bool = False
    views: Result = field(default_factory=dict)
    evaluations: Mapping[str, Result] = field(default_factory=dict)
    coco_detector: Result = field(default_factory=dict)
    random_baseline: bool = True
    short_finetuning: bool = True


QUICK = Protocol(
    encoder="resnet18-small-half",
    size=48,
    hidden=1024,
    batch_size=32,
    lr=0.4,
    momentum=0.99,
    checkpoint_every=100,
    steps=250,
    views={"scale": [0.2, 1.0], "blur": [0.1, 0.5], "jitter": [0.4, 0.4, 0.2, 0.1]},
    evaluations={
        "linear": {"fast": True},
        # rates are high, because the runs are tens of steps; one pair, because held-out images of
        # so few choose by chance
        "finetune": {"lrs": [0.1], "head_lrs": [2.0], "batch_size": 32, "min_scale": 0.2},
        # of a size that a CPU trains in a minute
        "detect": {
            "head": "fpn",
            "batch_size": 8,
            "lr": 0.1,
            "warmup": 20,
            "channels": 32,
            "hidden": 128,
            "proposals": 64,
            "anchor_scale": 4,
            "checkpoint_every": 100,
            "size": 64,
            "iterations": 250,
        },
        # frozen: an FCN of so few steps would find nothing but the background
        "segment": {
            "head": "linear",
            "side": 64,
            "crop": 64,
            "iterations": 150,
            "batch_size": 8,
            "checkpoint_every": 50,
        },
    },
)
# measured on a thousand photographs: colour is their shortcut, and they need more steps than scenes
PHOTOS = replace(
    QUICK,
    steps=2000,
    views=QUICK.views | {"jitter": [0.4, 0.4, 0.6, 0.3], "gray_p": 0.4},
)
PAPER = Protocol(
    encoder="resnet50",
    size=224,
    hidden=4096,
    batch_size=1024,
    lr=0.05,
    momentum=0.99,
    momentum_limit=1,
    checkpoint_every=500,
    epochs=200,
    warmup_divisor=20,
    recipe_warmup=True,
    evaluations={"finetune": {"recipe": "byol"}, "detect": {"head": "c4"}},
    coco_detector={"head": "fpn", "mask": True},
    random_baseline=False,
    short_finetuning=False,
)
PROTOCOLS: dict[ProtocolName, Protocol] = {"quick": QUICK, "photos": PHOTOS, "paper": PAPER}
