"""The flow `care-pipeline`: images → shards → pre-training → evaluation → report, every stage cached by content.

The record of a stage, a JSON file below the run directory, names its inputs and its outputs and is committed after these: a kill at
any moment costs at most the stage that was running, and Prefect's server, database and results are not needed.
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

import shards
from care.evaluate import stratified
from care.evaluate.features import same_classes
from flows import tasks
from flows.tables import Result
from shards import boxes, sources, storage
from shards.build import make_plan


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

    Returns what ``out/results.json`` holds. Run again, it redoes nothing that is finished; the defaults suit hundreds of steps on a CPU.

    Args:
        out: run directory.
        images: class folders, or a flat one, or ``train`` beside ``val`` or ``test`` folders of either kind; None: procedural scenes.
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
        detection: annotated images to train and to score detectors on, see ``shards.boxes.load``; the scenes have their own.
        detection_size: short side of the images, pixels.
        detection_iterations: training steps of the detectors.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to evaluate on.
        seed: of everything random.
    """
    if images is None:
        title, note = "procedural scenes", "The images are procedural scenes, rendered by this package, not photographs."
        for part, count, start in (("train", train_scenes, 0), ("val", val_scenes, train_scenes)):
            do(out, tasks.render, part, part=part, count=count, start=start, seed=seed)
        parts, skipped = {part: (str(Path(out, "images", part, "images")), (0.0, 1.0)) for part in ("train", "val")}, list[str]()
        detection = detection or (str(Path(out, "images", "train")), str(Path(out, "images", "val")))
    else:
        title, note = Path(images).resolve().name, ""
        parts, skipped = splits(images)
        if not detection:
            skipped.append("detection: the images have no boxes")
    built, trained, rows = dict[str, Result](), dict[str, Result](), list[Result]()
    for part, (source, share) in parts.items():
        plan = make_plan(source, share=share, seed=seed).digest
        built[part] = do(out, tasks.build, part, part=part, source=source, share=share, seed=seed, plan=plan)
    sets = [done["digest"] for done in built.values()]
    train = shards.open(Path(out, "train"))
    if "val" in built:
        same_classes(train, shards.open(Path(out, "val")))  # told before the training, not after it, like what follows
    counts = {fraction: len(stratified(train.labels, fraction, seed=seed)) for fraction in labels if "val" in built}
    skipped += [f"{100 * few:g} % of the labels: that is {n} images, too few to hold one out" for few, n in counts.items() if n < 3]
    if detection:
        known = boxes.load(detection[0])
        annotations = [known.digest, boxes.load(detection[1], classes=known.classes).digest]
        detector = tasks.DETECTOR | {"size": detection_size, "iterations": detection_iterations}
    batch = min(batch_size, len(train))
    settings = {
        "steps": steps, "batch_size": batch, "warmup": steps // 10, "lr": lr, "momentum": momentum,
        "attention_weight": attention_weight, "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    views = {"scale": [min_scale, 1.0], "blur": [min(0.1, max_blur), max_blur], "jitter": list(jitter), "gray_p": gray_p}
    encoders, digests = {"random initialisation": f"random:{encoder}"}, {"random initialisation": ""}
    for name, run, t_stream in [("C-stream alone", "c-stream", False)] * (images is None) + [("CARE", "", True)]:
        trained[name] = do(
            out, tasks.pretrain, name, run=run, encoder=encoder, size=size, hidden=hidden, settings=settings, views=views,
            t_stream=t_stream, seed=seed, digest=sets[0],
        )  # fmt: skip
        encoders[name], digests[name] = str(Path(out, run, "encoder.safetensors")), trained[name]["digest"]

    def judge(work: Callable[..., Result], on: list[str], name: str, *more: str, **inputs: Any) -> None:
        done = do(out, work, name, *more, encoder=encoders[name], seed=seed, digests=[digests[name], *on], **inputs)
        rows.extend({**row, "encoder": name} for row in done["rows"])

    for name in encoders:
        if "val" in built:
            judge(tasks.evaluate, sets, name, size=size)
        if images is None:
            judge(tasks.attention, [], name, start=train_scenes, count=val_scenes, size=size)
        if name == "C-stream alone":
            continue
        for fraction in (fraction for fraction, count in counts.items() if count >= 3):
            tuning = {"fraction": fraction, "steps": finetune_steps, "batch_size": batch, "min_scale": min_scale}
            judge(tasks.finetune, sets, name, f"{fraction:g}", size=size, **tuning)
        if detection:
            judge(tasks.detect, annotations, name, data=detection, settings=detector)
    results = {
        "title": f"CARE on {title}", "note": note, "skipped": skipped, "evaluations": rows, "losses": trained["CARE"]["losses"],
        "settings": settings, "views": views, "encoder": {"name": encoder, "size": size, "sha256": digests["CARE"]}, "seed": seed,
        "stages": [{"name": name, "text": done["text"]} for name, done in {**built, **trained}.items()],
    }  # fmt: skip
    do(out, tasks.report, results=results, encoders=encoders, pictured="val" if "val" in built else "train", size=size, seed=seed)
    return results


def splits(images: str) -> tuple[dict[str, tuple[str, tuple[float, float]]], list[str]]:
    """What to train and to evaluate on, as (folder, share of its files) by part, and what is left out and why."""
    root, source, named = Path(images), images, list[str]()
    if (root / "train").is_dir():
        source, named = str(root / "train"), [name for name in ("val", "validation", "valid", "test") if (root / name).is_dir()]
    skipped = [f"the folder {name}: {named[0]} is evaluated" for name in named[1:]]
    if not sources.find(source).classes:
        skipped.append("kNN, linear and few-label evaluation: the images have no labels (no class folders)")
        return {"train": (source, (0, 1))}, skipped
    if named:
        return {"train": (source, (0, 1)), "val": (str(root / named[0]), (0, 1))}, skipped
    return {"train": (source, (0, 0.8)), "val": (source, (0.8, 1))}, skipped


class Stage(NamedTuple):
    """A finished stage."""

    result: Result
    cached: bool


def do(out: str, work: Callable[..., Result], /, *names: str, **inputs: Any) -> Result:
    """The result of the stage ``work(out, **inputs)``, as a Prefect task; the stages of one function differ in ``names``."""
    named = (work.__name__, *names)
    shown = _recorded.with_options(name=work.__name__, task_run_name=" ".join(named))
    # return_state: called plainly, a task that returned a state gives that state, not its data
    result: Result = shown(out, "-".join(named), work, inputs, return_state=True).result()
    return result


@task(cache_policy=NO_CACHE)  # the record is the cache
def _recorded(out: str, name: str, work: Callable[..., Result], inputs: dict[str, Any]) -> Any:
    done = stage(Path(out), name, inputs, partial(work, out, **inputs))
    return Completed(name="Cached" if done.cached else "Completed", data=done.result)


def stage(out: Path, name: str, inputs: dict[str, Any], work: Callable[[], Result]) -> Stage:
    """The result of ``work()``, or of the record ``name`` where ``inputs`` and code are the same and the outputs are what they were."""
    key = storage.digest([name, inputs, code_version()])
    path = out / "stages" / f"{name}.json"
    if path.exists():
        record = storage.read_json(path)
        outputs = record["result"].get("outputs", {})
        if record["key"] == key and all((out / file).is_file() and storage.sha256(out / file) == sha for file, sha in outputs.items()):
            return Stage(record["result"], True)
    result = work()
    storage.write_json(path, {"key": key, "inputs": inputs, "result": result})
    return Stage(result, False)


@cache
def code_version() -> str:
    """Digest of this project's source: an edit runs the stages again, each from what its output folder holds, such as checkpoints."""
    paths = [path for package in ("shards", "care", "flows") for path in Path(str(files(package))).rglob("*.[pj]*")]
    sources = [path for path in paths if path.suffix in (".py", ".j2")]
    return storage.digest(sorted([path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in sources))
