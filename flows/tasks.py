"""The stages of ``care-pipeline``: each a few lines around one public function of ``shards`` or ``care``; none needs Prefect.

All arguments but the run directory are what the stage is cached by; digests of its input files are taken for that alone.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import care.evaluate
import care.show
import care.train
import shards
from care.encoders import Encoder
from flows.stages import Result
from shards import boxes, scenes, storage

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


def render(out: str, *, part: str, count: int, start: int, seed: int) -> Result:
    """Procedural scenes as an image folder with boxes and masks: ``out/images/PART``."""
    scenes.write(Path(out, "images", part), count=count, seed=seed, size=SCENE_SIZE, start=start)
    return _outputs(out, f"images/{part}/annotations.json") | {"text": f"{count:,} procedural scenes of {SCENE_SIZE} px"}


def build(out: str, *, part: str, source: str, share: tuple[float, float], seed: int, plan: str) -> Result:
    """The shard set ``out/PART`` of the images in ``source``; ``plan`` is the digest of its plan."""
    index = shards.build(source, Path(out, part), share=share, seed=seed)
    rejected = "".join(f", {len(names):,} {reason}" for reason, names in index.rejects.items())
    text = f"{len(index.samples):,} of {index.seen:,} files kept{rejected}"
    return _outputs(out, f"{part}/index.json") | {"digest": index.digest, "text": text}


def pretrain(
    out: str, *, run: str, encoder: str, size: int, hidden: int, settings: Result, views: Result, t_stream: bool, seed: int, digest: str
) -> Result:
    """Both streams, or the C-stream alone, on ``out/train``; checkpoints, logs and ``encoder.safetensors`` go to ``out/RUN``."""
    data = shards.open(Path(out, "train"))
    c, t = care.streams_for(encoder, size=size, seed=seed, objective=care.BYOL(hidden=hidden))
    changes: Result = {name: tuple(value) if isinstance(value, list) else value for name, value in views.items()}
    first, second = (view._replace(**changes) for view in care.train.VIEWS)
    done = care.train.pretrain(data, Path(out, run), c, t if t_stream else None, size=size, views=(first, second), seed=seed, **settings)
    text = f"{encoder} at {size} px, {settings['steps']:,} steps of {settings['batch_size']} images"
    files = _outputs(out, *(str(Path(run, file)) for file in ("encoder.safetensors", "losses.jsonl")))
    return files | {"losses": done.losses, "text": text, "digest": storage.sha256(done.encoder)}


def evaluate(out: str, *, encoder: str, size: int, seed: int, digests: list[str]) -> Result:
    """KNN and linear classification of ``out/val`` by an encoder's features."""
    network = _encoder(encoder, seed)
    known, asked = (care.evaluate.extract(network, shards.open(Path(out, part)), size=size) for part in ("train", "val"))
    tops = {"kNN": care.evaluate.knn(known, asked), "linear": care.evaluate.linear(known, asked, seed=seed).accuracy}
    return {"rows": [{"task": task, "protocol": PROTOCOLS[task], **top._asdict()} for task, top in tops.items()]}


def finetune(
    out: str, *, encoder: str, size: int, fraction: float, steps: int, batch_size: int, min_scale: float, seed: int, digests: list[str]
) -> Result:
    """Classification of ``out/val`` by the encoder fine-tuned on a fraction of the labels of ``out/train``."""
    train, val = shards.open(Path(out, "train")), shards.open(Path(out, "val"))
    rows = care.evaluate.stratified(train.labels, fraction, seed=seed)
    epochs = max(round(steps * min(batch_size, len(rows)) / len(rows)), 1)
    done = care.evaluate.finetune(
        _encoder(encoder, seed), train, val, rows=rows, size=size, rates=FINETUNE_RATES, epochs=epochs, batch_size=batch_size,
        min_scale=min_scale, seed=seed,
    )  # fmt: skip
    protocol = PROTOCOLS["labels"].format(labels=len(rows), steps=steps)
    return {"rows": [{"task": f"{100 * fraction:g} % of the labels", "protocol": protocol, **done.accuracy._asdict()}]}


def detect(out: str, *, run: str, encoder: str, data: tuple[str, str], settings: Result, seed: int, digests: list[str]) -> Result:
    """Faster R-CNN from the encoder, trained on the first and scored on the second of ``data``, in ``out/RUN``."""
    train = boxes.load(data[0])
    val = boxes.load(data[1], classes=train.classes)
    done = care.evaluate.detect(_encoder(encoder, seed), train, val, Path(out, run), seed=seed, **settings)
    lost = [f"; {len(names):,} left out of {part.path.name}: {why}" for part in (train, val) for why, names in part.rejects.items()]
    return {"rows": [{"task": "detection", "protocol": "".join([PROTOCOLS["detection"].format(**settings), *lost]), **done._asdict()}]}


def attention(out: str, *, encoder: str, start: int, count: int, size: int, seed: int, digests: list[str]) -> Result:
    """Share of the encoder's attention inside the objects of the procedural scenes from number ``start`` on."""
    rendered = [scenes.render(seed, start + n, size=SCENE_SIZE) for n in range(count)]
    masks = [np.any([one.mask for one in scene.objects], axis=0) for scene in rendered]
    share = care.show.attention_share(_encoder(encoder, seed), [Image.fromarray(scene.image) for scene in rendered], masks, size=size)
    protocol = PROTOCOLS["attention"].format(count=count, area=share.area)
    return {"rows": [{"task": "attention inside objects", "protocol": protocol, **share._asdict()}]}


def report(out: str, *, results: Result, encoders: dict[str, str], pictured: str, size: int, seed: int) -> Result:
    """``results.json``, ``maps.png`` of eight images of the set ``out/PICTURED``, and ``report.html``."""
    data = shards.open(Path(out, pictured))
    networks = {name: care.train.load_encoder(source, seed=seed) for name, source in encoders.items()}
    storage.write_bytes(Path(out, "maps.png"), care.show.sheet([data.image(n) for n in range(min(8, len(data)))], networks, size=size))
    storage.write_json(Path(out, "results.json"), results)
    care.show.report(out)
    return _outputs(out, "results.json", "maps.png", "report.html")


def _encoder(source: str, seed: int) -> Encoder:
    encoder = care.train.load_encoder(source, seed=seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    return encoder


def _outputs(out: str, *names: str) -> Result:
    return {"outputs": {name: storage.sha256(Path(out, name)) for name in names}}
