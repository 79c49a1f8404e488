"""What a stage does: plain functions without Prefect, each of which leaves its outputs in a folder, path or URL, of its own."""

import json
import math
import os
import platform
import re
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
import torch
from PIL import Image
import care.evaluate
import care.show
import care.train
import shards
from care.encoders import Encoder
from care.evaluate.resampling import resampled_mean, rounded
from care.positions import Position
from care.show.export import PLAIN, as_markdown
from care.show.paper import compared
from care.show.results import MEASURES
from care.show.verdict import differences, verdict
from care.train import ranks
from care.train.launch import process_group, torchrun
from care.train.weights import digest_of
from flows.result import Result
from shards import boxes, scenes, storage
from shards.scenes_cache import images_of
from shards.terminal import console

POSITIONS: dict[str, type[Position]] = {
    "none": care.NoPosition,
    "sin-cos": care.SinCosPosition,
    "absolute": care.AbsolutePosition,
    "relative": care.RelativePosition,
}
OBJECTIVES: dict[str, type[care.Objective]] = {
    "byol": care.BYOL,
    "simsiam": care.SimSiam,
    "simclr": care.SimCLR,
    "moco-v3": care.MoCoV3,
    "barlow-twins": care.BarlowTwins,
}


def build(
    out: str, *, source: str, annotated: bool = False, seed: int = 0, **settings: Any
) -> Result:
    """The shard set ``out`` of the images in ``source``; ``settings`` are those of ``shards.build``.

    ``scenes:START+COUNT`` are procedural scenes, with the classes of their folders or, ``annotated``, their boxes and masks.
    """
    index = shards.build(images_of(source, annotated, seed), out, seed=seed, **settings)
    if annotated and "annotations.json" not in index.sha256:
        raise shards.ShardError(
            f"wanted a COCO JSON, a folder with an annotations.json, or a VOC list, got {source} without boxes"
        )
    rejected = "".join(f", {len(names):,} {reason}" for reason, names in index.rejects.items())
    tars = {shard.url: {"size": shard.filesize, "sha256": shard.sha256} for shard in index.shards}
    counts = {
        "seen": index.seen,
        "kept": len(index.samples),
        **{reason: len(names) for reason, names in index.rejects.items()},
    }
    text = f"{len(index.samples):,} of {index.seen:,} files kept{rejected}"
    return {
        "digest": index.digest,
        "outputs": outputs(out, "index.json") | tars,
        "text": text,
        "counts": counts,
    }


def pretrain(
    out: str,
    *,
    train: str,
    encoder: str,
    size: int,
    hidden: int,
    steps: int,
    views: Result | None = None,
    t_stream: bool = True,
    blocks: int = 5,
    position: str = "relative",
    zero_gamma: bool = True,
    detach: bool = False,
    objective: str = "byol",
    seed: int = 0,
    nproc: int = 1,
    **settings: Any,
) -> Result:
    """Both streams, or the C-stream alone, trained on a set.

    Args:
        out: run directory, path or URL.
        train: shard set.
        encoder: a name for ``care.build_encoder``.
        size: side of the views, pixels.
        hidden: hidden width of projectors and predictors.
        steps: length of the training.
        views: fields of ``care.train.View`` that differ from the paper's.
        t_stream: whether there is a T-stream.
        blocks: its attention blocks.
        position: its encoding of positions, a name in ``POSITIONS``.
        zero_gamma: each of its blocks starts as its shortcut.
        detach: its gradient ends at the encoder.
        objective: of the C-stream, a name in ``OBJECTIVES``.
        seed: of weights, order and views.
        nproc: training processes; 0: one a GPU.
        **settings: those of ``care.train.pretrain``.

    Returns:
        Digest and files of the encoder, its last losses, and how long it took on what.
    """
    nproc = nproc or torch.cuda.device_count() or 1
    network: Result = {"encoder": encoder, "size": size, "seed": seed}
    t_shape: Result = {"blocks": blocks, "zero_gamma": zero_gamma, "detach": detach}
    if nproc > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        given = network | t_shape | {"train": train, "hidden": hidden, "steps": steps}
        given |= {"position": position, "objective": objective, "views": views}
        given |= {"t_stream": t_stream, "nproc": nproc} | settings
        torchrun(out, nproc, [json.dumps(["pretrain", out, given])], module="flows.child")
    with process_group(out):  # what is trained is only loaded, and told
        c, t = care.streams_for(
            **network,
            **t_shape,
            position=POSITIONS[position],
            objective=OBJECTIVES[objective](hidden=hidden),
        )
        changes: Result = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in (views or {}).items()
        }
        first, second = (view._replace(**changes) for view in care.train.VIEWS)
        asked: Result = {"size": size, "steps": steps, "views": (first, second), "seed": seed}
        asked |= settings
        done = care.train.pretrain(shards.open(train), out, c, t if t_stream else None, **asked)
    files = outputs(out, "encoder.safetensors", "losses.jsonl")
    text = f"{encoder} at {size} px, {steps:,} steps of {settings['batch_size']} images"
    return {
        "digest": files["encoder.safetensors"]["sha256"],
        "outputs": files,
        "text": text,
        "losses": done.losses,
        "timing": timing(out)._asdict(),
    }


class Timing(NamedTuple):
    """How long a training took, and on what its last step was taken."""

    seconds: float  # of all steps, without the import of packages and the saving at the end
    step_seconds: float  # median
    hardware: str


def timing(out: str) -> Timing:
    """How long the training in ``out`` took, whatever stopped it in between.

    Its log has the seconds since its process began: they start anew where it was continued.
    """
    lines = storage.read_bytes(f"{out}/timing.jsonl").decode().splitlines()
    elapsed = [float(json.loads(line)["seconds"]) for line in lines]
    steps = [now - before for before, now in pairwise(elapsed) if now > before]
    began_anew = [now for before, now in pairwise([math.inf, *elapsed]) if now <= before]
    step_seconds = statistics.median(steps or elapsed)
    return Timing(round(sum(steps) + sum(began_anew), 3), round(step_seconds, 5), hardware())


def hardware() -> str:
    """The machine in a line: processor, its cores for this process, GPU where there is one."""
    cpu = platform.machine()
    with suppress(OSError):
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = models[0] if models else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores{gpu}"


def features(
    out: str,
    *,
    encoder: str,
    train: str,
    val: str,
    size: int,
    seed: int = 0,
    workers: int | None = None,
) -> Result:
    """Features of both sets by an encoder, a file a shard, for kNN and linear evaluation."""
    for data in (train, val):
        care.evaluate.extract(
            loaded(encoder, seed), shards.open(data), size=size, workers=workers, cache=out
        )
    return {"text": "features of centre crops"}


def judge(
    out: str,
    *,
    verb: str,
    encoder: str,
    train: str,
    val: str,
    called: str | None = None,
    cache: str | None = None,
    seed: int = 0,
    trials: int = 1,
    nproc: int = 1,
    **settings: Any,
) -> Result:
    """An evaluation in ``care.evaluate``, with its ``settings``, of an encoder that the result calls so; the mean of ``trials`` seeds.

    ``results.json`` has the row, ``seed-N`` the runs. A detector may be trained by ``nproc`` processes (0: one a GPU).
    """
    if verb == "detect":
        known = boxes.load(train)
        both: tuple[Any, Any] = (known, boxes.load(val, classes=known.classes))
    else:
        both = (shards.open(train), shards.open(val))
    work, network, started = (
        getattr(care.evaluate, verb),
        loaded(encoder, seed),
        "TORCHELASTIC_RUN_ID" in os.environ,
    )
    settings = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in settings.items()
    }
    digests, found = (
        {"encoder": digest_of(network), "train": both[0].digest, "val": both[1].digest},
        list[Result](),
    )
    nproc = nproc or torch.cuda.device_count() or 1
    for number in range(seed, seed + trials):
        run = f"{out}/seed-{number}"
        if nproc > 1 and verb == "detect" and not started:
            given = {
                "verb": verb,
                "encoder": encoder,
                "train": train,
                "val": val,
                "seed": number,
                "nproc": nproc,
                **settings,
            }
            torchrun(run, nproc, [json.dumps(["judge", out, given])], module="flows.child")
            found.append(storage.read_json(f"{run}/result.json"))
            continue
        with process_group(run):
            places: dict[str, Any] = {"cache": cache, "seed": number, "run": run}
            done = work(
                network,
                *both,
                **{name: value for name, value in places.items() if name in work.__annotations__},
                **settings,
            )
            settings |= done.chosen  # of the first seed: the others train with it
            found.append(done._asdict())
            if ranks.rank() == 0:
                storage.write_json(f"{run}/result.json", found[-1])
    row = found[0] | {
        "encoder": called or encoder,
        "settings": settings,
        "digests": digests,
        "seed": seed,
        "trials": trials,
    }
    for measure in row.pop("measures"):
        values = [one["measures"][measure] for one in found]
        row[measure] = statistics.fmean(values)
        row |= {f"{measure}_std": statistics.stdev(values)} if trials > 1 else {}
    # the trials are of the same images, and so of the same draws
    by_draw = zip(*(one["resampled"] for one in found), strict=True)
    row["resampled"] = rounded([statistics.fmean(figures) for figures in by_draw])
    for part, data in zip(("train", "val"), both, strict=True) if verb == "detect" else ():
        for reason, names in data.rejects.items():
            row["protocol"] += f"; {len(names):,} left out of {part}: {reason}"
            console.print(
                f"[yellow]{data.path}: {len(names):,} left out, {reason}, such as {names[0]}",
                soft_wrap=True,
            )
    row["versions"] = {
        "care": version("care-ssl"),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }
    row = dict(json.loads(json.dumps(row)))  # tuples are lists there, as in what is read back
    if started:
        return row
    storage.write_json(
        f"{out}/results.json", {"title": f"{row['task']}: {row['encoder']}", "evaluations": [row]}
    )
    text = ", ".join(f"{name} {row[name]:.1f}" for name in MEASURES if name in row)
    return {
        "outputs": outputs(out, "results.json"),
        "rows": [row],
        "text": text,
        "markdown": as_markdown(compared([row])),
    }


def attention(
    out: str,
    *,
    encoder: str,
    start: int,
    count: int,
    size: int,
    seed: int = 0,
    scene_seed: int | None = None,
) -> Result:
    """Share of an encoder's attention inside the objects of the procedural scenes.

    Args:
        out: the stage's folder; nothing is left there.
        encoder: source of it.
        start: number of the first scene.
        count: scenes.
        size: side of the crops, pixels.
        seed: of an encoder that is initialised here.
        scene_seed: of the scenes; None: the same.

    Returns:
        The row, with the share by draw of resampled scenes.
    """
    of_scenes = seed if scene_seed is None else scene_seed
    rendered = [scenes.render(of_scenes, start + n) for n in range(count)]
    masks = [np.any([one.mask for one in scene.objects], axis=0) for scene in rendered]
    images = [Image.fromarray(scene.image) for scene in rendered]
    shares = care.show.attention_shares(loaded(encoder, seed), images, masks, size=size)
    share = care.show.Share(*(100 * float(part.mean()) for part in shares))
    how = f"share of the label-free Grad-CAM of the last stage inside the objects' masks, mean over {count} scenes"
    protocol = f"{how}; a map without preference would have {share.area:.1f} %"
    row = {"task": "attention inside objects", "protocol": protocol, **share._asdict()}
    row["resampled"] = resampled_mean(shares.inside)
    return {"rows": [row], "text": f"{share.inside:.1f} % inside"}


def report(
    out: str, *, results: Result, encoders: dict[str, str], pictured: str, size: int, seed: int = 0
) -> Result:
    """The page about a pipeline and what it shows.

    Args:
        out: folder for ``results.json``, to which a verdict is added, ``results.md``,
            ``losses.jsonl`` of CARE, ``maps.png`` and ``report.html``.
        results: what the pipeline found, with its evaluations.
        encoders: sources of the encoders by name, CARE among them.
        pictured: shard set whose first eight images have their attention drawn.
        size: side of the crops, pixels.
        seed: of encoders that are initialised here.

    Returns:
        The files with their digests, and the tables for a Prefect artifact.
    """
    data = shards.open(pictured)
    networks = {
        name: care.train.load_encoder(source, seed=seed) for name, source in encoders.items()
    }
    storage.write_bytes(
        f"{out}/maps.png",
        care.show.sheet([data.image(n) for n in range(min(8, len(data)))], networks, size=size),
    )
    rows = results["evaluations"]
    verdict_text = verdict(rows)
    difference_rows = [difference._asdict() for difference in differences(rows)]
    judged = results | {"verdict": verdict_text, "differences": difference_rows}
    storage.write_json(f"{out}/results.json", judged)
    storage.copy(f"{encoders['CARE']}/losses.jsonl", f"{out}/losses.jsonl")
    care.show.report(out)
    text = as_markdown(rows)
    opening = f"{verdict_text.translate(PLAIN)}\n\n" if verdict_text else ""
    storage.write_bytes(f"{out}/results.md", (opening + text).encode())
    files = outputs(out, "results.json", "results.md", "losses.jsonl", "maps.png", "report.html")
    return {"outputs": files, "text": f"{len(rows)} results", "markdown": text}


WORKS: dict[str, Callable[..., Result]] = {
    one.__name__: one for one in (build, pretrain, features, judge, attention, report)
}


@cache
def loaded(source: str, seed: int) -> Encoder:
    """An encoder, on the GPU where there is one."""
    return care.train.load_encoder(source, seed=seed).to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )


def outputs(out: str, *names: str) -> dict[str, Any]:
    """Sizes and digests of files in a folder, by name."""
    sizes = storage.listing(out)
    return {
        name: {"size": sizes[name], "sha256": storage.sha256(f"{out}/{name}")} for name in names
    }
