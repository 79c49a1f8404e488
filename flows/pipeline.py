"""The flow `care-pipeline`: images → shards → pre-training → evaluation → report, every stage cached on disk."""

from pathlib import Path
from typing import Any

import torch
from prefect import flow, task
from prefect.states import Completed

import shards
from care import streams_for
from care.evaluate import extract, knn, linear
from care.evaluate.features import same_classes
from care.show import report, sheet
from care.train import VIEWS, load_encoder, pretrain
from flows.stages import Stage, stage
from shards import scenes, sources, storage
from shards.build import make_plan

Result = dict[str, Any]
SCENE_SIZE = 96
PROCEDURAL = "The images are procedural scenes, rendered by this package, not photographs."
PROTOCOLS = {
    "kNN": "weighted nearest neighbours on frozen features (k 20, temperature 0.07), centre crop; nothing is trained or chosen",
    "linear": "one linear layer on cached frozen features of centre crops, 80 epochs of SGD, learning rate chosen on a fifth of train",
}


@task(name="render", task_run_name="render {part}")
def render_task(out: str, part: str, count: int, start: int, seed: int) -> Any:
    """Procedural scenes as an image folder with boxes and masks: ``out/images/PART``."""

    def work() -> Result:
        scenes.write(Path(out, "images", part), count=count, seed=seed, size=SCENE_SIZE, start=start)
        return _outputs(out, f"images/{part}/annotations.json") | {"text": f"{count:,} procedural scenes of {SCENE_SIZE} px"}

    return _state(stage(Path(out), f"render-{part}", {"count": count, "start": start, "seed": seed, "size": SCENE_SIZE}, work))


@task(name="build", task_run_name="build {part}")
def build_task(out: str, part: str, source: str, share: tuple[float, float], seed: int) -> Any:
    """The shard set ``out/PART`` of the images in ``source``."""

    def work() -> Result:
        index = shards.build(source, Path(out, part), share=share, seed=seed)
        rejected = "".join(f", {len(names):,} {reason}" for reason, names in index.rejects.items())
        text = f"{len(index.samples):,} of {index.seen:,} files kept{rejected}"
        return _outputs(out, f"{part}/index.json") | {"digest": index.digest, "text": text}

    plan = make_plan(source, share=share, seed=seed)
    return _state(stage(Path(out), f"build-{part}", {"plan": plan.digest}, work))


@task(name="pretrain", task_run_name="pretrain")
def pretrain_task(
    out: str, train: str, encoder: str, size: int, hidden: int, settings: dict[str, Any], augmentation: dict[str, Any], seed: int
) -> Any:
    """CARE on ``out/train``; checkpoints, logs and ``encoder.safetensors`` go to ``out``."""

    def work() -> Result:
        data = shards.open(Path(out, "train"))
        c, t = streams_for(encoder, size=size, seed=seed, hidden=hidden)
        changes: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in augmentation.items()}
        first, second = (view._replace(**changes) for view in VIEWS)
        done = pretrain(data, out, c, t, size=size, views=(first, second), seed=seed, **settings)
        text = f"{encoder} at {size} px, {settings['steps']:,} steps of {settings['batch_size']} images"
        return _outputs(out, "encoder.safetensors", "losses.jsonl") | {"losses": done.losses, "text": text}

    inputs = {"train": train, "encoder": encoder, "size": size, "hidden": hidden, "settings": settings, "views": augmentation, "seed": seed}
    return _state(stage(Path(out), "pretrain", inputs, work))


@task(name="evaluate", task_run_name="evaluate {name}")
def evaluate_task(out: str, name: str, encoder: str, digests: list[str], size: int, seed: int) -> Any:
    """KNN and linear classification of ``out/val`` by an encoder's features."""

    def work() -> Result:
        network = load_encoder(encoder, seed=seed).to("cuda" if torch.cuda.is_available() else "cpu")
        train, val = shards.open(Path(out, "train")), shards.open(Path(out, "val"))
        same_classes(train, val)
        known, asked = extract(network, train, size=size), extract(network, val, size=size)
        tops = {"kNN": knn(known, asked), "linear": linear(known, asked, seed=seed).accuracy}
        rows = [{"task": task, "encoder": name, "protocol": PROTOCOLS[task], **top._asdict()} for task, top in tops.items()]
        return {"outputs": {}, "rows": rows}

    return _state(stage(Path(out), f"evaluate-{name}", {"encoder": encoder, "digests": digests, "size": size, "seed": seed}, work))


@task(name="report", task_run_name="report")
def report_task(out: str, results: dict[str, Any], encoders: dict[str, str], pictured: str, size: int, seed: int) -> Any:
    """``results.json``, ``maps.png`` of eight images of the set ``out/PICTURED``, and ``report.html``."""

    def work() -> Result:
        data = shards.open(Path(out, pictured))
        images = [data.image(n) for n in range(min(8, len(data)))]
        networks = {name: load_encoder(source, seed=seed) for name, source in encoders.items()}
        storage.write_bytes(Path(out, "maps.png"), sheet(images, networks, size=size))
        storage.write_json(Path(out, "results.json"), results)
        report(out)
        return _outputs(out, "results.json", "maps.png", "report.html")

    return _state(stage(Path(out), "report", {"results": results, "encoders": encoders, "size": size, "seed": seed}, work))


@flow(name="care-pipeline", persist_result=False)
def care_pipeline(
    out: str = "demo",
    images: str | None = None,
    encoder: str = "resnet18-small-half",
    size: int = 48,
    hidden: int = 1024,
    steps: int = 300,
    batch_size: int = 32,
    lr: float = 0.4,
    momentum: float = 0.99,
    attention_weight: float = 100,
    min_scale: float = 0.2,
    max_blur: float = 0.5,
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
    gray_p: float = 0.2,
    checkpoint_every: int = 100,
    train_scenes: int = 2000,
    val_scenes: int = 400,
    seed: int = 0,
) -> Result:
    """Images → shards → CARE pre-training → kNN and linear evaluation beside random initialisation → report, all in ``out``.

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
            _do(render_task, out, part, count, start, seed)
            built[part] = _do(build_task, out, part, str(Path(out, "images", part, "images")), (0, 1), seed)
    else:
        title, note = f"CARE on {Path(images).resolve().name}", ""
        parts, skipped = splits(images)
        for part, (source, share) in parts.items():
            built[part] = _do(build_task, out, part, source, share, seed)
    train = shards.open(Path(out, "train"))
    if "val" in built:
        same_classes(train, shards.open(Path(out, "val")))  # told before the training, not after it
    settings = {
        "steps": steps, "batch_size": min(batch_size, len(train)), "warmup": steps // 10, "lr": lr, "momentum": momentum,
        "attention_weight": attention_weight, "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    augmentation = {"scale": [min_scale, 1.0], "blur": [min(0.1, max_blur), max_blur], "jitter": list(jitter), "gray_p": gray_p}
    trained = _do(pretrain_task, out, built["train"]["digest"], encoder, size, hidden, settings, augmentation, seed)
    encoders = {"random initialisation": f"random:{encoder}", "CARE": str(Path(out, "encoder.safetensors"))}
    rows = []
    if "val" in built:
        for name, source in encoders.items():
            digests = [
                built["train"]["digest"],
                built["val"]["digest"],
                trained["outputs"]["encoder.safetensors"] if name == "CARE" else "",
            ]
            rows += _do(evaluate_task, out, name, source, digests, size, seed)["rows"]
    results = {
        "title": title, "note": note, "skipped": skipped, "evaluations": rows, "losses": trained["losses"],
        "settings": settings, "views": augmentation,
        "encoder": {"name": encoder, "size": size, "sha256": trained["outputs"]["encoder.safetensors"]}, "seed": seed,
        "stages": [{"name": name, "text": done["text"]} for name, done in {**built, "pretrain": trained}.items()],
    }  # fmt: skip
    _do(report_task, out, results, encoders, "val" if "val" in built else "train", size, seed)
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
    if not sources.folder(parts["train"][0]).classes:
        parts.pop("val", None)
        skipped.append("kNN and linear evaluation: the images have no labels (no class folders)")
    elif "val" not in parts:
        source = parts["train"][0]
        parts = {"train": (source, (0, 0.8)), "val": (source, (0.8, 1))}
    return parts, skipped


def _outputs(out: str, *names: str) -> Result:
    return {"outputs": {name: storage.sha256(Path(out, name)) for name in names}}


def _state(done: Stage) -> Any:
    return Completed(name="Cached" if done.cached else "Completed", data=done.result)


def _do(stage_task: Any, *arguments: Any) -> Result:
    # return_state: called plainly, a task that returned a state gives that state, not its data
    result: Result = stage_task(*arguments, return_state=True).result()
    return result
