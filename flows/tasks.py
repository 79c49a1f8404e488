"""The stages of ``care-pipeline`` as Prefect tasks: each a few lines around one public function, cached on disk by its inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from prefect import task
from prefect.states import Completed

import shards
from care import BYOL, streams_for
from care.encoders import Encoder
from care.evaluate import detect, extract, finetune, knn, linear, stratified
from care.evaluate.features import same_classes
from care.show import attention_share, report, sheet
from care.train import VIEWS, load_encoder, pretrain
from flows.stages import Stage, stage
from shards import boxes, scenes, storage
from shards.build import make_plan

Result = dict[str, Any]
SCENE_SIZE = 96
FINETUNE_RATES = ((0.1, 2.0), (0.4, 2.0))
"""Learning rates of encoder and head; high, because the runs are tens of steps."""
DETECTOR = {
    "batch_size": 8, "lr": 0.1, "warmup": 20, "channels": 32, "hidden": 128, "proposals": 64, "anchor_scale": 4, "checkpoint_every": 100,
}  # fmt: skip
"""A detector of a size that a CPU trains in a minute."""
PROTOCOLS = {
    "kNN": "weighted nearest neighbours on frozen features (k 20, temperature 0.07), centre crop; nothing is trained or chosen",
    "linear": "one linear layer on cached frozen features of centre crops, 80 epochs of SGD, learning rate chosen on a fifth of train",
    "labels": "the whole network fine-tuned on {labels} labelled images in {steps} steps, learning rates chosen on a fifth of them",
    "detection": "Faster R-CNN with a feature pyramid at {size} px, everything trained for {iterations} iterations of {batch_size} images; "
    "COCO's AP",
    "attention": "share of the label-free Grad-CAM of the last stage inside the objects' masks, mean over {count} scenes; "
    "a map without preference would have {area:.1f} %",
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


@task(name="pretrain", task_run_name="pretrain {name}")
def pretrain_task(
    out: str, name: str, run: str, train: str, encoder: str, size: int, hidden: int, settings: Result, augmentation: Result,
    t_stream: bool, seed: int,
) -> Any:  # fmt: skip
    """Both streams, or the C-stream alone, on ``out/train``; checkpoints, logs and ``encoder.safetensors`` go to ``out/RUN``."""

    def work() -> Result:
        data = shards.open(Path(out, "train"))
        c, t = streams_for(encoder, size=size, seed=seed, objective=BYOL(hidden=hidden))
        changes: Result = {name: tuple(value) if isinstance(value, list) else value for name, value in augmentation.items()}
        first, second = (view._replace(**changes) for view in VIEWS)
        done = pretrain(data, Path(out, run), c, t if t_stream else None, size=size, views=(first, second), seed=seed, **settings)
        text = f"{encoder} at {size} px, {settings['steps']:,} steps of {settings['batch_size']} images"
        files = _outputs(out, *(str(Path(run, file)) for file in ("encoder.safetensors", "losses.jsonl")))
        return files | {"losses": done.losses, "text": text, "digest": storage.sha256(done.encoder)}

    inputs = {
        "train": train, "encoder": encoder, "size": size, "hidden": hidden, "settings": settings, "views": augmentation,
        "t_stream": t_stream, "seed": seed,
    }  # fmt: skip
    return _state(stage(Path(out), f"pretrain-{name}", inputs, work))


@task(name="evaluate", task_run_name="evaluate {name}")
def evaluate_task(out: str, name: str, encoder: str, digests: list[str], size: int, seed: int) -> Any:
    """KNN and linear classification of ``out/val`` by an encoder's features."""

    def work() -> Result:
        network, train, val = _encoder(encoder, seed), shards.open(Path(out, "train")), shards.open(Path(out, "val"))
        same_classes(train, val)
        known, asked = extract(network, train, size=size), extract(network, val, size=size)
        tops = {"kNN": knn(known, asked), "linear": linear(known, asked, seed=seed).accuracy}
        rows = [{"task": task, "encoder": name, "protocol": PROTOCOLS[task], **top._asdict()} for task, top in tops.items()]
        return {"outputs": {}, "rows": rows}

    return _state(stage(Path(out), f"evaluate-{name}", {"encoder": encoder, "digests": digests, "size": size, "seed": seed}, work))


@task(name="finetune", task_run_name="finetune {name} {fraction}")
def finetune_task(
    out: str, name: str, encoder: str, digests: list[str], size: int, fraction: float, steps: int, batch_size: int, min_scale: float,
    seed: int,
) -> Any:  # fmt: skip
    """Classification of ``out/val`` by the encoder fine-tuned on a fraction of the labels of ``out/train``."""

    def work() -> Result:
        train, val = shards.open(Path(out, "train")), shards.open(Path(out, "val"))
        rows = stratified(train.labels, fraction, seed=seed)
        epochs = max(round(steps * min(batch_size, len(rows)) / len(rows)), 1)
        done = finetune(
            _encoder(encoder, seed), train, val, rows=rows, size=size, rates=FINETUNE_RATES, epochs=epochs, batch_size=batch_size,
            min_scale=min_scale, seed=seed,
        )  # fmt: skip
        protocol = PROTOCOLS["labels"].format(labels=len(rows), steps=steps)
        row = {"task": f"{100 * fraction:g} % of the labels", "encoder": name, "protocol": protocol, **done.accuracy._asdict()}
        return {"outputs": {}, "rows": [row]}

    inputs = {
        "encoder": encoder, "digests": digests, "size": size, "fraction": fraction, "steps": steps, "batch_size": batch_size,
        "min_scale": min_scale, "seed": seed,
    }  # fmt: skip
    return _state(stage(Path(out), f"finetune-{name}-{fraction:g}", inputs, work))


@task(name="detect", task_run_name="detect {name}")
def detect_task(out: str, name: str, encoder: str, digest: str, data: tuple[str, str], settings: Result, seed: int) -> Any:
    """Faster R-CNN from the encoder, trained on the first and scored on the second of ``data``, in ``out/detection/NAME``."""
    train = boxes.load(data[0])
    val = boxes.load(data[1], classes=train.classes)

    def work() -> Result:
        done = detect(_encoder(encoder, seed), train, val, Path(out, "detection", name), seed=seed, **settings)
        lost = [
            f"; {len(names):,} left out of {data.path.name}: {reason}" for data in (train, val) for reason, names in data.rejects.items()
        ]
        protocol = PROTOCOLS["detection"].format(**settings) + "".join(lost)
        return {"outputs": {}, "rows": [{"task": "detection", "encoder": name, "protocol": protocol, **done._asdict()}]}

    inputs = {"encoder": encoder, "digests": [digest, train.digest, val.digest], "settings": settings, "seed": seed}
    return _state(stage(Path(out), f"detect-{name}", inputs, work))


@task(name="attention", task_run_name="attention {name}")
def attention_task(out: str, name: str, encoder: str, digest: str, start: int, count: int, size: int, seed: int) -> Any:
    """Share of the encoder's attention inside the objects of the procedural scenes from number ``start`` on."""

    def work() -> Result:
        rendered = [scenes.render(seed, start + n, size=SCENE_SIZE) for n in range(count)]
        masks = [np.any([one.mask for one in scene.objects], axis=0) for scene in rendered]
        share = attention_share(_encoder(encoder, seed), [Image.fromarray(scene.image) for scene in rendered], masks, size=size)
        protocol = PROTOCOLS["attention"].format(count=count, area=share.area)
        return {"outputs": {}, "rows": [{"task": "attention inside objects", "encoder": name, "protocol": protocol, **share._asdict()}]}

    inputs = {"encoder": encoder, "digest": digest, "start": start, "count": count, "size": size, "seed": seed}
    return _state(stage(Path(out), f"attention-{name}", inputs, work))


@task(name="report", task_run_name="report")
def report_task(out: str, results: Result, encoders: dict[str, str], pictured: str, size: int, seed: int) -> Any:
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


def do(stage_task: Any, *arguments: Any) -> Result:
    """Run a task and give its data."""
    # return_state: called plainly, a task that returned a state gives that state, not its data
    result: Result = stage_task(*arguments, return_state=True).result()
    return result


def _encoder(source: str, seed: int) -> Encoder:
    encoder = load_encoder(source, seed=seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    return encoder


def _outputs(out: str, *names: str) -> Result:
    return {"outputs": {name: storage.sha256(Path(out, name)) for name in names}}


def _state(done: Stage) -> Any:
    return Completed(name="Cached" if done.cached else "Completed", data=done.result)
