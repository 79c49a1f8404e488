"""The flow `care-pipeline`: images → shards → pre-training → evaluation → report, every stage cached on disk."""

from pathlib import Path

from prefect import flow

import shards
from care.evaluate import stratified
from care.evaluate.features import same_classes
from flows import tasks
from flows.tasks import Result, do
from shards import boxes, sources

PROCEDURAL = "The images are procedural scenes, rendered by this package, not photographs."


@flow(name="care-pipeline", persist_result=False)
def care_pipeline(
    out: str = "demo", images: str | None = None, encoder: str = "resnet18-small-half", size: int = 48, hidden: int = 1024,
    steps: int = 250, batch_size: int = 32, lr: float = 0.4, momentum: float = 0.99, attention_weight: float = 100, min_scale: float = 0.2,
    max_blur: float = 0.5, jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1), gray_p: float = 0.2,
    checkpoint_every: int = 100, labels: tuple[float, ...] = (0.01, 0.1), finetune_steps: int = 50,
    detection: tuple[str, str] | None = None, detection_size: int = 64, detection_iterations: int = 250, train_scenes: int = 2000,
    val_scenes: int = 400, seed: int = 0,
) -> Result:  # fmt: skip
    """Images → shards → CARE pre-training → evaluation beside random initialisation → report, all in ``out``.

    The evaluations are kNN, linear, fine-tuning on few labels and detection; the procedural scenes also tell how much of the
    attention lies inside their objects, beside the C-stream trained alone.

    Run again, it redoes nothing that is finished; the defaults suit hundreds of steps on a CPU, not the paper's hundred thousands.

    Args:
        out: run directory.
        images: image folder (class folders, or flat; or ``train`` beside ``val`` or ``test`` folders of either kind); None
            renders the embedded procedural scenes.
        encoder: a name in ``care.ENCODERS``.
        size: side of the views and of the evaluation's crops, pixels.
        hidden: hidden width of projectors and predictors (the paper: 4096).
        steps: pre-training steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        attention_weight: λ of Eq. 5.
        min_scale: least share of an image's area in a view.
        max_blur: largest σ of the views' blur, pixels.
        jitter: largest change of brightness, contrast, saturation and hue in a view.
        gray_p: share of the views without colour.
        checkpoint_every: steps between checkpoints.
        labels: fractions of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about.
        detection: annotated images to train detectors on and to score them on, as ``shards.boxes.load`` takes them; None
            for the procedural scenes' own, or none with ``images``.
        detection_size: short side of the images, pixels.
        detection_iterations: training steps of the detectors.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to evaluate on.
        seed: of everything random.

    Returns:
        What ``out/results.json`` holds.
    """
    built: dict[str, Result] = {}
    skipped: list[str] = []
    if images is None:
        title, note = "CARE on procedural scenes", PROCEDURAL
        for part, count, start in (("train", train_scenes, 0), ("val", val_scenes, train_scenes)):
            do(tasks.render_task, out, part, count, start, seed)
            built[part] = do(tasks.build_task, out, part, str(Path(out, "images", part, "images")), (0, 1), seed)
        detection = detection or (str(Path(out, "images", "train")), str(Path(out, "images", "val")))
    else:
        title, note = f"CARE on {Path(images).resolve().name}", ""
        parts, skipped = splits(images)
        for part, (source, share) in parts.items():
            built[part] = do(tasks.build_task, out, part, source, share, seed)
        if not detection:
            skipped.append("detection: the images have no boxes")
    train = shards.open(Path(out, "train"))
    if "val" in built:
        same_classes(train, shards.open(Path(out, "val")))  # told before the training, not after it, like what follows
        for fraction in labels:
            if (count := len(stratified(train.labels, fraction, seed=seed))) < 3:
                skipped.append(f"{100 * fraction:g} % of the labels: that is {count} images, too few to hold one out")
                labels = tuple(other for other in labels if other != fraction)
    if detection:
        boxes.load(detection[1], classes=boxes.load(detection[0]).classes)
    batch = min(batch_size, len(train))
    settings = {
        "steps": steps, "batch_size": batch, "warmup": steps // 10, "lr": lr, "momentum": momentum,
        "attention_weight": attention_weight, "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    augmentation = {"scale": [min_scale, 1.0], "blur": [min(0.1, max_blur), max_blur], "jitter": list(jitter), "gray_p": gray_p}
    encoders, digests, trained = {"random initialisation": f"random:{encoder}"}, {"random initialisation": ""}, dict[str, Result]()
    for name, run, t_stream in [("C-stream alone", "c-stream", False)] * (images is None) + [("CARE", "", True)]:
        trained[name] = do(
            tasks.pretrain_task, out, name, run, built["train"]["digest"], encoder, size, hidden, settings, augmentation, t_stream, seed
        )
        encoders[name], digests[name] = str(Path(out, run, "encoder.safetensors")), trained[name]["digest"]
    rows = list[Result]()
    for name, source in encoders.items():
        if "val" in built:
            inputs = [built["train"]["digest"], built["val"]["digest"], digests[name]]
            rows += do(tasks.evaluate_task, out, name, source, inputs, size, seed)["rows"]
        if images is None:
            rows += do(tasks.attention_task, out, name, source, digests[name], train_scenes, val_scenes, size, seed)["rows"]
        if name == "C-stream alone":
            continue
        if "val" in built:
            for fraction in labels:
                arguments = (size, fraction, finetune_steps, batch, min_scale, seed)
                rows += do(tasks.finetune_task, out, name, source, inputs, *arguments)["rows"]
        if detection:
            detector = tasks.DETECTOR | {"size": detection_size, "iterations": detection_iterations}
            rows += do(tasks.detect_task, out, name, source, digests[name], detection, detector, seed)["rows"]
    results = {
        "title": title, "note": note, "skipped": skipped, "evaluations": rows, "losses": trained["CARE"]["losses"],
        "settings": settings, "views": augmentation,
        "encoder": {"name": encoder, "size": size, "sha256": digests["CARE"]}, "seed": seed,
        "stages": [{"name": name, "text": done["text"]} for name, done in {**built, **trained}.items()],
    }  # fmt: skip
    do(tasks.report_task, out, results, encoders, "val" if "val" in built else "train", size, seed)
    return results


def splits(images: str) -> tuple[dict[str, tuple[str, tuple[float, float]]], list[str]]:
    """What to train and to evaluate on, as (folder, share of its files) by part, and what is left out and why."""
    root = Path(images)
    skipped: list[str] = []
    parts: dict[str, tuple[str, tuple[float, float]]] = {"train": (images, (0, 1))}
    if (root / "train").is_dir():
        parts["train"] = (str(root / "train"), (0, 1))
        named = [name for name in ("val", "validation", "valid", "test") if (root / name).is_dir()]
        if named:
            parts["val"] = (str(root / named[0]), (0, 1))
            skipped += [f"the folder {name}: {named[0]} is evaluated" for name in named[1:]]
    if not sources.find(parts["train"][0]).classes:
        parts.pop("val", None)
        skipped.append("kNN, linear and few-label evaluation: the images have no labels (no class folders)")
    elif "val" not in parts:
        source = parts["train"][0]
        parts = {"train": (source, (0, 0.8)), "val": (source, (0.8, 1))}
    return parts, skipped
