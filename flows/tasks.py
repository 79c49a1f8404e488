"""Stages of ``care-pipeline``, without Prefect: a few lines around a public function; all arguments but ``out`` decide the cache."""

import json
import re
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import care.evaluate
import care.show
import care.train
import shards
from care import ranks
from care.encoders import Encoder
from care.evaluate import Evaluation
from care.train.checkpoint import digest_of
from care.train.launch import refuse_again
from flows.tables import Result
from shards import boxes, scenes, storage
from shards.progress import console

SCENE_SIZE = 96
FINETUNE_LRS, FINETUNE_HEAD_LRS, TRIALS = (0.1, 0.4), (2.0, 2.0), 3  # rates are high, because the runs are tens of steps
DETECTOR = {  # of a size that a CPU trains in a minute
    "head": "fpn", "batch_size": 8, "lr": 0.1, "warmup": 20, "channels": 32, "hidden": 128, "proposals": 64, "anchor_scale": 4,
    "checkpoint_every": 100,
}  # fmt: skip


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
    both, place = (shards.open(f"{out}/train"), shards.open(f"{out}/val")), Path(out, "evaluations")
    tops = [judged(care.evaluate.knn, encoder, both, place, size=size, seed=seed)]
    return {"rows": [*tops, judged(care.evaluate.linear, encoder, both, place, size=size, fast=True, seed=seed)]}


def finetune(
    out: str, *, encoder: str, size: int, fraction: float, steps: int, batch_size: int, min_scale: float, seed: int, digests: list[str]
) -> Result:
    """Classification of ``out/val`` by the encoder fine-tuned on a fraction of the labels of ``out/train``."""
    both = shards.open(f"{out}/train"), shards.open(f"{out}/val")
    count = len(care.evaluate.stratified(both[0].labels, fraction, seed=seed))
    epochs = max(round(steps * min(batch_size, count) / count), 1)
    row = judged(
        care.evaluate.finetune, encoder, both, Path(out, "evaluations"), size=size, fraction=fraction, seed=seed, trials=TRIALS,
        lrs=FINETUNE_LRS, head_lrs=FINETUNE_HEAD_LRS, epochs=(epochs,), batch_size=batch_size, min_scale=min_scale,
    )  # fmt: skip
    return {"rows": [row | {"task": f"{100 * fraction:g} % of the labels"}]}


def detect(out: str, *, encoder: str, data: tuple[str, str], settings: Result, seed: int, digests: list[str]) -> Result:
    """A detector from the encoder, trained on the first and scored on the second of ``data``."""
    both = annotated(*data)
    row = judged(care.evaluate.detect, encoder, both, Path(out, "evaluations"), seed=seed, **settings)
    lost = [f"; {len(names):,} left out of {part.path.name}: {why}" for part in both for why, names in part.rejects.items()]
    return {"rows": [row | {"task": "detection", "protocol": "".join([row["protocol"], *lost])}]}


def attention(out: str, *, encoder: str, start: int, count: int, size: int, seed: int, digests: list[str]) -> Result:
    """Share of the encoder's attention inside the objects of the procedural scenes from number ``start`` on."""
    rendered = [scenes.render(seed, start + n, size=SCENE_SIZE) for n in range(count)]
    masks = [np.any([one.mask for one in scene.objects], axis=0) for scene in rendered]
    share = care.show.attention_share(loaded(encoder, seed), [Image.fromarray(scene.image) for scene in rendered], masks, size=size)
    protocol = (
        f"share of the label-free Grad-CAM of the last stage inside the objects' masks, mean over {count} scenes; "
        f"a map without preference would have {share.area:.1f} %"
    )
    return {"rows": [{"task": "attention inside objects", "protocol": protocol, **share._asdict()}]}


def report(out: str, *, results: Result, encoders: dict[str, str], pictured: str, size: int, seed: int) -> Result:
    """``results.json``, ``maps.png`` of eight images of the set ``out/PICTURED``, and ``report.html``."""
    data = shards.open(Path(out, pictured))
    networks = {name: care.train.load_encoder(source, seed=seed) for name, source in encoders.items()}
    storage.write_bytes(Path(out, "maps.png"), care.show.sheet([data.image(n) for n in range(min(8, len(data)))], networks, size=size))
    storage.write_json(Path(out, "results.json"), results)
    care.show.report(out)
    return _outputs(out, "results.json", "maps.png", "report.html")


def loaded(source: str, seed: int) -> Encoder:
    """An encoder, on the GPU where there is one."""
    return care.train.load_encoder(source, seed=seed).to("cuda" if torch.cuda.is_available() else "cpu")


def annotated(train: str, val: str) -> tuple[Any, Any]:
    """Two annotated sets with the classes of the first; what of them is left out is said."""
    known = boxes.load(train)
    for data in (both := (known, boxes.load(val, classes=known.classes))):
        for reason, rejected in data.rejects.items():
            console.print(f"[yellow]{data.path}: {len(rejected):,} left out, {reason}, such as {rejected[0]}", soft_wrap=True)
    return both


def judged(
    verb: Callable[..., Evaluation], source: str, both: tuple[Any, Any], out: str | Path, *, seed: int = 0, trials: int = 1,
    start: Callable[[Path, int], None] | None = None, **settings: Any,
) -> Result:  # fmt: skip
    """The row of ``results.json`` that ``verb`` gives for an encoder, the mean of ``trials`` seeds; kept, with the runs, below ``out``.

    ``start`` trains a seed in a folder by other processes, which call this function without it; ``settings`` are keywords of ``verb``.
    """
    place, encoder = storage.local(out), loaded(source, seed)
    digests = {"encoder": digest_of(encoder), **{part: data.digest for part, data in zip(("train", "val"), both, strict=True)}}
    takes, found = verb.__annotations__, list[Result]()
    settings = {name: value for name, value in settings.items() if value is not None}
    folder = Path(
        storage.local(out), "-".join((verb.__name__, re.sub(r"[^\w.]+", "-", source).strip("-"), storage.digest([digests, settings])[:8]))
    )
    for number in range(seed, seed + trials):
        run = folder / f"seed-{number}"
        if start:
            start(run, number)
            found.append(storage.read_json(run / "result.json"))
            continue
        refuse_again(run)
        places: dict[str, Any] = {"cache": place / "features"} if "cache" in takes else {}
        places |= {"seed": number} if "seed" in takes else {}
        done = verb(encoder, *both, *([run] if "run" in takes else []), **places, **settings)
        settings |= done.chosen  # of the first seed: the others train with it
        found.append(done._asdict())
        if ranks.rank() == 0:
            storage.write_json(run / "result.json", found[-1])
    row = found[0] | {"encoder": source, "settings": settings, "digests": digests, "seed": seed, "trials": trials}
    for name in row.pop("measures"):
        values = [one["measures"][name] for one in found]
        row[name] = statistics.fmean(values)
        row |= {f"{name}_std": statistics.stdev(values)} if trials > 1 else {}
    row["versions"] = {"care": version("care-ssl"), "torch": torch.__version__, "torchvision": version("torchvision")}
    row = dict(json.loads(json.dumps(row)))  # tuples are lists there, as in what is read back
    if ranks.rank() == 0:
        storage.write_json(folder / "results.json", {"title": f"{row['task']}: {source}", "evaluations": [row]})
    return row


def _outputs(out: str, *names: str) -> Result:
    return {"outputs": {name: storage.sha256(Path(out, name)) for name in names}}
