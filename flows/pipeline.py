"""The flow `care-pipeline`: images → shards → pre-training → evaluation → report, every stage cached by content.

``care_pipeline.fn`` is the same chain without Prefect, with the same results to the byte.
"""

import re
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple
import numpy as np
from prefect import flow
import shards
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from shards import locks, sources, storage
from shards.bounds import (
    BatchSize,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PixelSide,
    PositiveFloat,
    PositiveInt,
)
from shards.errors import Misuse, ShardError

STAGES = (
    "train",
    "val",
    "voc-train",
    "voc-val",
    "coco-train",
    "coco-val",
    "pretrain",
    "features",
    "knn",
    "linear",
    "finetune",
    "voc",
    "coco",
    "attention",
    "report",
)
_QUICK: Result = {
    "encoder": "resnet18-small-half",
    "size": 48,
    "hidden": 1024,
    "steps": 250,
    "batch_size": 32,
    "lr": 0.4,
    "momentum": 0.99,
    "checkpoint_every": 100,
    "views": {"scale": [0.2, 1.0], "blur": [0.1, 0.5], "jitter": [0.4, 0.4, 0.2, 0.1]},
    "linear": {"fast": True},
    # rates are high, because the runs are tens of steps; one pair, because held-out images of so few choose by chance
    "finetune": {"lrs": [0.1], "head_lrs": [2.0], "batch_size": 32, "min_scale": 0.2},
    "detect": {  # of a size that a CPU trains in a minute
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
}
PROTOCOLS: dict[str, Result] = {
    "quick": _QUICK,
    # measured on a thousand photographs: colour is their shortcut, and they need more steps than the scenes
    "photos": _QUICK
    | {"steps": 2000, "views": _QUICK["views"] | {"jitter": [0.4, 0.4, 0.6, 0.3], "gray_p": 0.4}},
    "paper": {
        "encoder": "resnet50",
        "size": 224,
        "hidden": 4096,
        "epochs": 200,
        "batch_size": 1024,
        "lr": 0.05,
        "momentum": 0.99,
        "checkpoint_every": 500,
        "views": {},
        "linear": {},
        "finetune": {"recipe": "byol"},
        "detect": {"head": "c4"},
    },
}

LONGEST = (
    "detect",
    "finetune",
    "linear",
    "knn",
    "attention",
)  # what is judged, by the time that it takes


class Planned(NamedTuple):
    """A stage to come that judges an encoder."""

    told: Result  # what its rows say of encoder and task
    name: str
    work: str
    inputs: Result
    after: Future[Result] | None = None  # the stage whose folder is its cache

    @property
    def length(self) -> int:
        """Its place among the kinds of stages, the longest first."""
        return LONGEST.index(self.inputs.get("verb", self.work))


@flow(name="care-pipeline", persist_result=False)
def care_pipeline(
    *,
    out: str = "demo",
    images: str | None = None,
    val: str | None = None,
    protocol: Literal["quick", "photos", "paper"] | None = None,
    encoder: str | None = None,
    size: PixelSide | None = None,
    hidden: PositiveInt | None = None,
    steps: PositiveInt | None = None,
    batch_size: BatchSize | None = None,
    lr: PositiveFloat | None = None,
    momentum: Fraction | None = None,
    attention_weight: NonNegativeFloat = 100,
    checkpoint_every: PositiveInt | None = None,
    c_stream: bool | None = None,
    baselines: list[str] | None = None,
    labels: tuple[float, ...] = (0.01, 0.1),
    finetune_steps: PositiveInt = 50,
    voc_train: str | None = None,
    voc_val: str | None = None,
    coco_train: str | None = None,
    coco_val: str | None = None,
    detection_size: PixelSide | None = None,
    detection_iterations: PositiveInt | None = None,
    train_scenes: PositiveInt = 2000,
    val_scenes: PositiveInt = 400,
    seed: NonNegativeInt = 0,
    nproc: NonNegativeInt = 0,
    jobs: NonNegativeInt = 0,
    workers: NonNegativeInt | None = None,
    runner: Runner = "threads",
    stall_minutes: PositiveFloat = 60,
    refresh: list[str] | None = None,
) -> Result:
    """Images → shards → CARE pre-training → evaluation beside random initialisation → report, all below ``out``.

    The evaluations are kNN, linear, fine-tuning on few labels and detection; the procedural scenes, the default images, also tell how
    much of the attention lies inside their objects, beside the C-stream trained alone. Run again, it redoes nothing that is finished.

    Args:
        out: folder of all that is made, a path or URL; experiments share what is equal in them.
        images: class folders, or a flat one, or train beside val or test folders of either kind, or other sources; else procedural scenes.
        val: labelled images to evaluate on, where they are not beside those to train on.
        protocol: quick suits hundreds of steps on a CPU and is the default for scenes, photos for images; paper has the paper's settings.
        encoder: a name as for care pretrain; by default that of the protocol, like what follows.
        size: side of the views and of the evaluation's crops, pixels.
        hidden: hidden width of projectors and predictors (the paper 4096).
        steps: pre-training steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        attention_weight: λ of Eq. 5.
        checkpoint_every: steps between checkpoints.
        c_stream: also train the C-stream alone; by default only on scenes.
        baselines: encoders to judge beside, such as supervised:resnet50; by default random:ENCODER, with paper none.
        labels: shares of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about, if the protocol is not the paper's.
        voc_train: Pascal VOC list, or shards of one, to train detectors on.
        voc_val: the same, to score them on.
        coco_train: COCO JSON, or shards of one, to train detectors on; the scenes have their own.
        coco_val: the same, to score them on.
        detection_size: short side of their images, pixels.
        detection_iterations: training steps of the detectors.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to evaluate on.
        seed: of everything random.
        nproc: training processes on this machine; 0: one a GPU.
        jobs: stages at a time; 0: one a GPU, or one a core, at most four.
        workers: processes that decode images, beside each process that computes; by default what is best here.
        runner: maps shard building and features over Prefect's threads here, or over Dask or Ray workers.
        stall_minutes: without any progress, after which a stage is stopped and tried again.
        refresh: stages to do again though they are finished.

    Returns:
        What ``out/results.json`` holds.
    """
    chosen = {
        "encoder": encoder,
        "size": size,
        "hidden": hidden,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "checkpoint_every": checkpoint_every,
    }
    given: Result = PROTOCOLS[protocol or ("photos" if images else "quick")] | {
        name: v for name, v in chosen.items() if v is not None
    }
    encoder, size, paper, side = (
        given["encoder"],
        given["size"],
        protocol == "paper",
        {"workers": workers},
    )
    if wrong := [part for part in labels if not 0 < part <= 1]:
        raise Misuse(f"wanted shares of the labels above 0 and up to 1, got {wrong[0]:g}")
    for first, second in ((voc_train, voc_val), (coco_train, coco_val)):
        if bool(first) != bool(second):
            raise Misuse(
                f"wanted annotated images both to train on and to score, got only {first or second}; give both or none"
            )
    if unknown := {*(refresh or [])} - {*STAGES}:
        raise Misuse(
            f"wanted stages to do again of {', '.join(STAGES)}; got {', '.join(sorted(unknown))}"
        )
    if images and f"{storage.locate(out).absolute()}/".startswith(
        f"{storage.locate(images).absolute()}/"
    ):
        raise Misuse(
            f"wanted another folder for results than that of the images, {images}, got {out}; they would become images, too"
        )
    if images:
        title, note, (parts, skipped) = Path(images).resolve().name, "", splits(images, val)
    else:
        title, note = (
            "procedural scenes",
            "The images are procedural scenes, rendered by this package, not photographs.",
        )
        coco_train, coco_val = (
            coco_train or f"scenes:0+{train_scenes}",
            coco_val or f"scenes:{train_scenes}+{val_scenes}",
        )
        parts, skipped = (
            {
                "train": {"source": f"scenes:0+{train_scenes}"},
                "val": {"source": f"scenes:{train_scenes}+{val_scenes}"},
            },
            [],
        )
    boxed = {
        name: pair
        for name, *pair in (("voc", voc_train, voc_val), ("coco", coco_train, coco_val))
        if pair[0]
    }
    skipped += [] if boxed else ["detection: the images have no boxes"]
    with Schedule(out, refresh or (), jobs=jobs, stall=60 * stall_minutes, runner=runner) as chain:
        made = {
            part: chain.start(part, "build", {**inputs, "seed": seed})
            for part, inputs in parts.items()
        }
        for name, pair in boxed.items():
            for part, source in zip((f"{name}-train", f"{name}-val"), pair, strict=True):
                made[part] = chain.start(
                    part, "build", {"source": source, "annotated": True, "seed": seed}
                )
        built = {name: future.result() for name, future in made.items()}
        both = {part: built[part] for part in parts}
        train = shards.open(built["train"]["url"])
        if "val" in both and train.classes != (asked := shards.open(both["val"]["url"]).classes):
            only = ", ".join(
                sorted({*train.classes} ^ {*asked})[:5]
            )  # told before the training, not after it, like what follows
            raise ShardError(
                f"{images} and what it is evaluated on must have the same classes; only one of them has: {only}"
            )
        few = {
            part: int(np.maximum(np.rint(part * np.bincount(train.labels)), 1).sum())
            for part in labels
            if "val" in both
        }
        skipped += [
            f"{100 * part:g} % of the labels: that is {n} images, too few to hold one out"
            for part, n in few.items()
            if n < 3
        ]
        batch = min(given["batch_size"], len(train))
        total = (
            given["steps"] if "steps" in given else given["epochs"] * max(len(train) // batch, 1)
        )
        settings = {
            "steps": total,
            "batch_size": batch,
            "warmup": total // (20 if paper else 10),
            "lr": given["lr"],
            "momentum": given["momentum"],
            "attention_weight": attention_weight,
            "checkpoint_every": given["checkpoint_every"],
        }
        beside = ([] if paper else [f"random:{encoder}"]) if baselines is None else baselines
        encoders: dict[str, Any] = {
            "random initialisation" if one == f"random:{encoder}" else one: one for one in beside
        }
        alone = c_stream or (c_stream is None and not images)
        network = {
            "encoder": encoder,
            "size": size,
            "hidden": given["hidden"],
            "views": given["views"],
            "seed": seed,
            **settings,
        }
        trained = [("C-stream alone", "pretrain-c-stream")] * alone + [("CARE", "pretrain")]
        # one after the other with all of the machine, unless they fill it side by side, which wastes less
        one_by_one, trainings = (
            nproc > 1 or not chain.children.fill_the_cpu(len(trained)),
            dict[str, Future[Result]](),
        )
        for name, stage in trained:
            inputs = {"train": built["train"], "t_stream": name == "CARE", **network} | (
                {} if name == "CARE" else {"attention_weight": 0}
            )
            trainings[name] = chain.start(
                stage, "pretrain", inputs | {"nproc": nproc, **side}, alone=one_by_one
            )
            if one_by_one:
                trainings[name].result()  # a failure ends the chain before the next one
        encoders |= {name: training.result() for name, training in trainings.items()}
        care, planned = encoders["CARE"], list[Planned]()
        for name, whole in encoders.items():
            source = (
                whole
                if isinstance(whole, str)
                else whole | {"url": f"{whole['url']}/encoder.safetensors"}
            )  # not all of the run
            tag, one = (
                "" if name == "CARE" else re.sub(r"\W+", "-", f"-{name.lower()}"),
                {"encoder": source, "seed": seed},
            )
            todo, ready = (
                list[tuple[str, str, Result]](),
                None,
            )  # stages, what their rows call the task, inputs
            if "val" in both:
                ready = chain.start(
                    f"features{tag}", "features", {"size": size, **both, **one, **side}
                )
                todo = [
                    (verb, "", {"verb": verb, "size": size, **both, **given.get(verb, {})})
                    for verb in ("knn", "linear")
                ]
            for share, count in few.items() if name != "C-stream alone" else ():
                if count < 3:
                    continue
                epochs = (
                    {}
                    if paper
                    else {"epochs": [max(round(finetune_steps * min(32, count) / count), 1)]}
                )
                tuning = {
                    "verb": "finetune",
                    "size": size,
                    "fraction": share,
                    "trials": 3,
                    **both,
                    **given["finetune"],
                    **epochs,
                }
                todo.append((f"finetune-{share:g}", f"{100 * share:g} % of the labels", tuning))
            for kind in boxed if name != "C-stream alone" else ():
                detector = given["detect"] | (
                    {"head": "fpn", "mask": True} if paper and kind == "coco" else {}
                )
                detector |= {
                    n: v
                    for n, v in (("size", detection_size), ("iterations", detection_iterations))
                    if v is not None
                }
                todo.append(
                    (
                        kind,
                        "",
                        {
                            "verb": "detect",
                            "train": built[f"{kind}-train"],
                            "val": built[f"{kind}-val"],
                            **detector,
                        },
                    )
                )
            for stage, task, inputs in todo:
                inputs, after = (
                    {"called": name, **inputs, **one, **side},
                    ready if stage in ("knn", "linear") else None,
                )
                told = {"encoder": name} | ({"task": task} if task else {})
                planned.append(Planned(told, stage + tag, "judge", inputs, after))
            if not images:
                inside = {"start": train_scenes, "count": val_scenes, "size": size, **one}
                planned.append(Planned({"encoder": name}, f"attention{tag}", "attention", inside))
        # the longest first: what is left at the end then fills all cores; in results they stand as planned
        futures = {
            stage.name: chain.start(stage.name, stage.work, stage.inputs, after=stage.after)
            for stage in sorted(planned, key=lambda stage: stage.length)
        }
        found = [(stage.told, futures[stage.name]) for stage in planned]
        wait([future for _, future in found])  # what fails does not stop the others
        results = {
            "title": f"CARE on {title}",
            "note": note,
            "skipped": skipped,
            "settings": settings,
            "views": given["views"],
            "seed": seed,
            "evaluations": [
                row | told for told, future in found for row in future.result()["rows"]
            ],
            "losses": care["losses"],
            "encoder": {"name": encoder, "size": size, "sha256": care["digest"]},
            "stages": [
                {"name": name, "text": done["text"]}
                for name, done in {**built, **encoders}.items()
                if "text" in done
            ],
        }
        pictured = built["val" if "val" in built else "train"]
        shown = {"results": results, "encoders": encoders, "pictured": pictured, "size": size}
        pages = chain.start("report", "report", {**shown, "seed": seed}).result()
        with locks.exclusive(f"{out}/stages/.results", "copying results into", patience=600):
            for name, place in {
                **dict.fromkeys(pages["outputs"], pages["url"]),
                "encoder.safetensors": care["url"],
            }.items():
                storage.copy(f"{place}/{name}", f"{out}/{name}")
            return dict(storage.read_json(f"{out}/results.json"))


def splits(images: str, val: str | None = None) -> tuple[dict[str, Result], list[str]]:
    """What to train and to evaluate on, by part the source and perhaps the share of its files, and what is left out and why."""
    root, source, named = storage.locate(images), images, [val] if val else list[str]()
    if (root / "train").is_dir():
        source = f"{images}/train"
        named += [
            f"{images}/{name}"
            for name in ("val", "validation", "valid", "test")
            if (root / name).is_dir()
        ]
    skipped = [
        f"the folder {Path(name).name}: {Path(named[0]).name} is evaluated" for name in named[1:]
    ]
    if not sources.find(source).classes:
        skipped.append(
            "kNN, linear and few-label evaluation: the images have no labels (no class folders)"
        )
        return {"train": {"source": source}}, skipped
    if named:
        return {"train": {"source": source}, "val": {"source": named[0]}}, skipped
    return {
        "train": {"source": source, "share": [0, 0.8]},
        "val": {"source": source, "share": [0.8, 1]},
    }, skipped
