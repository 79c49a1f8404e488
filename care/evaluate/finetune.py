"""Semi-supervised evaluation: the whole network fine-tuned on few labels."""

import copy
import itertools
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import shards
from care.encoders import Encoder, evaluating
from care.errors import CareError, Diverged, Misuse
from care.evaluate.features import Evaluation, Rows, accuracy, centres, crops, same_classes
from care.schedules import lr_at
from care.train.checkpoint import digest_of
from care.train.run import Precision, Run, autocast, fastest_precision
from shards import storage
from shards.images import SUFFIXES
from shards.options import Batch, Count, Natural, Positive, Share, Side
from shards.order import permutation
from shards.progress import console


class Recipe(NamedTuple):
    """A published way to fine-tune; learning rates are for 256 images, the head's one for each of the encoder's."""

    lrs: tuple[float, ...]
    head_lrs: tuple[float, ...]
    epochs: tuple[int, ...]
    batch_size: int


_BYOL = (0.00125, 0.0025, 0.005, 0.0125, 0.025)  # 0.005 … 0.1 at 1,024 images
RECIPES = {
    "swav": Recipe((0.02, 0.01), (5.0, 0.2), (20,), 256),  # its rates for 1 % and for 10 % of ImageNet
    "barlow-twins": Recipe((0.005,), (0.5,), (20,), 256),  # for 1 %
    "byol": Recipe(_BYOL, _BYOL, (30, 50), 1024),
}


def stratified(labels: NDArray[np.int32], fraction: float, *, seed: int = 0) -> Rows:
    """Row numbers, ascending, of a part of every class; a smaller fraction is a subset of a larger one with the same seed.

    Labels [n] below 0 are none and never chosen. The fraction, above 0 and at most 1, else a ``CareError``, is rounded for each class,
    but to at least one image.
    """
    if not 0 < fraction <= 1:
        raise Misuse(f"wanted a fraction of the labels above 0 and at most 1, got {fraction}")
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[permutation(len(rows), seed=seed, stream=int(label))[: max(round(len(rows) * fraction), 1)]])
    return np.sort(np.concatenate(chosen))


def listed(data: shards.ShardSet, path: str | Path) -> tuple[Rows, list[str]]:
    """Row numbers, ascending, of the images that a text file names, one a line, and the names that are not in the set.

    A name is matched by its stem, as SimCLR's lists of ImageNet need it: ``n01440764_10026.JPEG`` is the sample whose key ends so. A file
    that cannot be read, names no image of the set, or a stem that several images have, is a ``CareError``.
    """
    try:
        names = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CareError(f"cannot read the list {path}: {error}") from None
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(data.keys):
        rows.setdefault(unquote(PurePosixPath(key).name), []).append(row)  # keys escape dots
    paths = {name: PurePosixPath(name) for name in names}
    stems = {name: path.stem if path.suffix.lower() in SUFFIXES else path.name for name, path in paths.items()}
    found = {name: rows.get(path.name) or rows.get(stems[name], []) for name, path in paths.items()}
    if several := [name for name, of in found.items() if len(of) > 1]:
        raise CareError(f"{path} names {several[0]}, but {data.path} has {len(found[several[0]])} images of that name")
    if not any(found.values()):
        raise CareError(f"none of the {len(names)} names in {path} is an image of {data.path}; the list is of another set")
    return np.array(sorted({row for of in found.values() for row in of}), np.int64), [name for name, of in found.items() if not of]


def finetune(
    encoder: Encoder, train: shards.ShardSet, val: shards.ShardSet, run: str | Path, *, fraction: float | None = None,
    names: str | Path | None = None, rows: Rows | None = None, size: Side | None = None,
    recipe: Literal["swav", "byol", "barlow-twins"] = "swav", lrs: tuple[float, ...] | None = None,
    head_lrs: tuple[float, ...] | None = None, epochs: tuple[int, ...] | None = None, batch_size: Batch | None = None,
    min_scale: Positive = 0.08, held_out: Share = 0.2, seed: Natural = 0, precision: Precision | None = None, workers: Natural = 0,
    checkpoint_every: Count = 500,
) -> Evaluation:  # fmt: skip
    """The whole network and a linear head fine-tuned on few labels of train; the last epoch is scored on val.

    Random resized crops and flips; SGD with Nesterov momentum 0.9, no weight decay, cosine to 0 (BYOL's). Where there is more than one,
    each pair of learning rates with each number of epochs is trained without the held-out part of the labels; the best there (by
    top-1, then by cross-entropy) is trained on all of them. Val chooses nothing. Interrupted, the same call continues.

    Args:
        encoder: is copied, not changed; used on its device.
        train: set with the labels.
        val: set to score, with the same classes.
        run: directory of the trainings.
        fraction: share of every class's labels to learn from.
        names: text file with the names of the images to learn from instead, such as SimCLR's lists of ImageNet.
        rows: their numbers in train instead.
        size: side of the crops, pixels; by default that of the encoder's training.
        recipe: whose learning rates, epochs and batch size, unless they are given.
        lrs: learning rates of the encoder to choose from, for 256 images a step.
        head_lrs: those of the head, one for each; by default the encoder's.
        epochs: passes over the labelled images, to choose from.
        batch_size: images a step, at most the labelled ones.
        min_scale: least share of an image's area in a training crop.
        held_out: share of the labelled images that chooses.
        seed: of the labelled and the held-out part, the order and the crops.
        precision: of the arithmetic; by default what the device computes natively.
        workers: processes that decode images.
        checkpoint_every: steps between checkpoints.

    Raises:
        CareError: too few labels to hold a part out, images without label, other classes in ``val``, or training diverged.
        Stopped: on SIGINT or SIGTERM, after saving.
    """
    same_classes(train, val)
    if sum(given is not None for given in (fraction, names, rows)) != 1:
        raise Misuse("wanted the images to learn from as one of fraction and names, such as --fraction 0.1 or --list NAMES.txt")
    if rows is None:
        rows, missing = listed(train, names) if names else (stratified(train.labels, fraction or 0, seed=seed), [])
        if missing:
            console.print(f"[yellow]{len(missing):,} names of {names} are not in {train.path}, such as {missing[0]}", soft_wrap=True)
    if absent := sorted(set(range(len(train.classes))) - set(train.labels[rows].tolist())):
        console.print(f"[yellow]{len(absent)} classes have no labelled image, such as {train.classes[absent[0]]}", soft_wrap=True)
    default = RECIPES[recipe]
    lrs, heads = lrs or default.lrs, head_lrs or (lrs if lrs else default.head_lrs)
    if len(lrs) != len(heads):
        raise Misuse(f"wanted one head rate for each of the {len(lrs)} learning rates, got {len(heads)}; give as many of both")
    candidates = [(*pair, n) for pair, n in itertools.product(zip(lrs, heads, strict=True), epochs or default.epochs)]
    known = rows[permutation(len(rows), seed=seed, stream=0)]
    asked, kept = np.split(known, [round(len(known) * held_out)])
    if (len(asked) == 0 and len(candidates) > 1) or len(kept) < 2 or (train.labels[known] < 0).any():
        raise CareError(f"cannot hold {held_out:.0%} of {len(known)} labelled images of {train.path} out; use more, all with a label")
    size, where, most = size or encoder.size, next(encoder.parameters()).device, batch_size or default.batch_size
    precision, start = precision or fastest_precision(where), digest_of(encoder)

    def fit(part: Rows, candidate: tuple[float, float, int], folder: Path) -> _Classifier:
        *pair, passes = candidate
        batch, model = min(most, len(part)), _Classifier(encoder, len(train.classes)).train()
        steps = passes * (len(part) // batch)
        parts = zip((model.encoder, model.head), pair, strict=True)
        groups = [{"params": of.parameters(), "initial_lr": lr * batch / 256} for of, lr in parts]
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)
        settings = {
            "encoder": start, "data": train.digest, "rows": storage.digest(part.tolist()), "size": size, "rates": pair, "steps": steps,
            "batch_size": batch, "min_scale": min_scale, "seed": seed, "precision": precision,
        }  # fmt: skip
        title = f"fine-tuning on {len(part)} labels"
        with Run(folder, model, optimizer, settings, title=title, precision=precision, checkpoint_every=checkpoint_every) as state:
            stream = crops(
                train, part, size=size, batch_size=batch, steps=steps, start=state.start, seed=seed, min_scale=min_scale, workers=workers
            )
            losses = lambda step: {"cross_entropy": F.cross_entropy(model(step[0]).float(), step[1].to(where))}  # noqa: E731
            state.steps(stream, losses, lambda step: lr_at(step, total=steps, base=1), "loss {cross_entropy:.3f}")
        return model

    def score(model: _Classifier, data: shards.ShardSet, of: Rows) -> tuple[Tensor, Tensor]:
        batches = [of[at : at + 256].tolist() for at in range(0, len(of), 256)]
        with torch.no_grad(), evaluating(model), autocast(where, precision):
            logits = [model(batch).float().cpu() for batch in centres(data, batches, size=size, workers=workers)]
        return torch.cat(logits), torch.from_numpy(data.labels[of].astype(np.int64))

    key = storage.digest([start, train.digest, known.tolist(), len(asked), candidates, size, most, min_scale, seed, precision])
    memory, folders = Path(run, "chosen.json"), [Path(run, "lr {:g} {:g}, {} epochs".format(*candidate)) for candidate in candidates]
    if len(candidates) == 1:
        best = candidates[0]
    elif memory.exists():
        if (before := storage.read_json(memory))["key"] != key:
            raise CareError(f"{run} was fine-tuned with other images or settings; repeat those, or choose a new run directory")
        best = candidates[before["best"]]
    else:
        scores = list[tuple[float, float]]()
        for candidate, folder in zip(candidates, folders, strict=True):
            try:
                logits, labels = score(fit(kept, candidate, folder), train, asked)
            except Diverged:
                logits = torch.full((1,), torch.nan)
            finite = bool(logits.isfinite().all())
            scores.append((accuracy(logits, labels).top1, -float(F.cross_entropy(logits, labels))) if finite else (-1.0, 0.0))
        if max(scores)[0] < 0:
            raise CareError(f"fine-tuning diverged at all of the learning rates {lrs}; try lower ones")
        best = candidates[scores.index(max(scores))]
        storage.write_json(memory, {"key": key, "best": candidates.index(best), "scores": scores})
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    logits, labels = score(fit(known, best, Path(run, "all labels")), val, np.arange(len(val)))
    if not logits.isfinite().all():
        raise CareError(f"fine-tuning on all labels diverged at the learning rates {best[:2]}; try lower ones")
    protocol = f"the whole network fine-tuned on {len(known)} labelled images, crops of {size} px, batch {min(most, len(known))}, learning"
    protocol += f" rates and epochs the best of {len(candidates)} on held-out ones" if len(candidates) > 1 else " rates and epochs as given"
    chosen = {"lrs": best[:1], "head_lrs": best[1:2], "epochs": best[2:]}
    return Evaluation(f"{100 * len(known) / len(train):.0f} % of the labels", protocol, accuracy(logits, labels)._asdict(), chosen)


class _Classifier(nn.Module):
    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, where = copy.deepcopy(encoder), next(encoder.parameters()).device
        self.head = nn.Linear(encoder.features, classes, device="meta").to_empty(device=where)  # draws nothing
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.head(self.encoder(x.to(self.head.weight.device).contiguous(memory_format=torch.channels_last)).features)
        return logits
