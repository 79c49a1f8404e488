"""Semi-supervised evaluation: the whole network fine-tuned on few labels."""

import copy
import itertools
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError, Diverged
from care.evaluate.evaluation import Evaluation, accuracy_of, hits, same_classes
from care.evaluate.few_labels import listed, stratified
from care.evaluate.images import Rows, centres, crops
from care.evaluate.recipes import RECIPES
from care.evaluate.resampling import resampled_mean
from care.schedules import lr_at
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.mirror import local_copy
from care.train.precision import Precision, autocast, fastest_precision
from care.train.run import Run
from care.train.sgd import set_rate
from care.train.weights import digest_of
from shards import storage
from shards.errors import Misuse
from shards.order import permutation
from shards.terminal import Batch, Count, Natural, Positive, Share, Side, console


def finetune(
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    run: str | Path,
    *,
    fraction: float | None = None,
    names: str | Path | None = None,
    rows: Rows | None = None,
    size: Side | None = None,
    recipe: Literal["swav", "byol", "barlow-twins"] = "swav",
    lrs: tuple[float, ...] | None = None,
    head_lrs: tuple[float, ...] | None = None,
    epochs: tuple[int, ...] | None = None,
    batch_size: Batch | None = None,
    min_scale: Positive = 0.08,
    held_out: Share = 0.2,
    seed: Natural = 0,
    precision: Precision | None = None,
    workers: Natural | None = None,
    checkpoint_every: Count = 500,
) -> Evaluation:
    """The whole network and a linear head fine-tuned on few labels of train; the last epoch is scored on val.

    Random resized crops and flips; SGD with Nesterov momentum 0.9, no weight decay, cosine to 0 (BYOL's). Where there is more than one,
    each pair of learning rates with each number of epochs is trained without the held-out part of the labels; the best there (by
    top-1, then by cross-entropy) is trained on all of them. Val chooses nothing. Interrupted, the same call continues.

    Args:
        encoder: is copied, not changed; used on its device.
        train: set with the labels; a ``CareError`` if images to learn from have none, or are too few to hold a part out.
        val: set to score; other classes are a ``CareError``.
        run: directory or URL of the trainings; other settings and divergence are a ``CareError``, SIGINT and SIGTERM ``Stopped``.
        fraction: share of every class's labels to learn from.
        names: text file or URL with the names of the images to learn from instead, such as SimCLR's lists of ImageNet.
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
        workers: processes that decode images, by default what is best here.
        checkpoint_every: steps between checkpoints.
    """
    same_classes(train, val)
    if sum(given is not None for given in (fraction, names, rows)) != 1:
        raise Misuse(
            "wanted the images to learn from as one of fraction and names, such as --fraction 0.1 or --list NAMES.txt"
        )
    if rows is None:
        rows, missing = (
            listed(train, names)
            if names
            else (stratified(train.labels, fraction or 0, seed=seed), [])
        )
        if missing:
            console.print(
                f"[yellow]{len(missing):,} names of {names} are not in {train.path}, such as {missing[0]}",
                soft_wrap=True,
            )
    if absent := sorted(set(range(len(train.classes))) - set(train.labels[rows].tolist())):
        console.print(
            f"[yellow]{len(absent)} classes have no labelled image, such as {train.classes[absent[0]]}",
            soft_wrap=True,
        )
    known_lrs, known_heads, passes, most = RECIPES[recipe]
    heads, lrs, most = head_lrs or lrs or known_heads, lrs or known_lrs, batch_size or most
    if len(lrs) != len(heads):
        raise Misuse(
            f"wanted one head rate for each of the {len(lrs)} learning rates, got {len(heads)}; give as many of both"
        )
    candidates = [
        (lr, head, n)
        for (lr, head), n in itertools.product(zip(lrs, heads, strict=True), epochs or passes)
    ]
    known = rows[permutation(len(rows), seed=seed, stream=0)]
    asked, kept = np.split(known, [round(len(known) * held_out)])
    if (
        (len(asked) == 0 and len(candidates) > 1)
        or len(kept) < 2
        or (train.labels[known] < 0).any()
    ):
        raise CareError(
            f"cannot hold {held_out:.0%} of {len(known)} labelled images of {train.path} out; use more, all with a label"
        )
    size, where = size or encoder.size, next(encoder.parameters()).device
    precision, start = precision or fastest_precision(where), digest_of(encoder)

    def trial(
        part: Rows,
        candidate: tuple[float, float, int],
        folder: str,
        data: shards.ShardSet,
        of: Rows,
    ) -> tuple[Bool[Tensor, "n 2"], float]:
        """``hits`` and likelihood on images of a set after training on a part of train.

        Raises:
            Diverged: the scores are not finite.
        """
        *pair, passes = candidate
        batch, model = min(most, len(part)), _Classifier(encoder, len(train.classes)).train()
        steps, title = passes * (len(part) // batch), f"fine-tuning on {len(part)} labels"
        groups = [{"params": one.parameters()} for one in model.children()]
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)
        settings = {
            "encoder": start,
            "data": train.digest,
            "rows": storage.digest(part.tolist()),
            "size": size,
            "rates": pair,
            "steps": steps,
            "batch_size": batch,
            "min_scale": min_scale,
            "seed": seed,
            "precision": precision,
        }
        with Run(
            folder,
            model,
            optimizer,
            settings,
            title=title,
            precision=precision,
            machine=Machine(workers=workers, checkpoint_every=checkpoint_every),
        ) as state:
            losses = lambda x, y, _: {
                "cross_entropy": nn.functional.cross_entropy(model(x).float(), y.to(where))
            }
            stream = crops(state, train, part, state.workers)
            for step, images in state.through(enumerate(stream, state.start)):
                rates = [lr_at(step, total=steps, base=lr * batch / 256) for lr in pair]
                set_rate(optimizer, *rates)
                terms = state.take_step(step, losses, images)
                state.record(step, terms, note=f"loss {terms['cross_entropy']:.3f}")
        batches = [rows.tolist() for rows in np.split(of, range(256, len(of), 256))]
        decoders = worker_count(workers, where, batches=len(batches), batch_bytes=256 * 3 * size**2)
        with torch.no_grad(), evaluating(model), autocast(where, precision):
            logits = torch.cat(
                [
                    model(x).float().cpu()
                    for x in centres(data, batches, size=size, workers=decoders)
                ]
            )
        if not logits.isfinite().all():
            raise Diverged(
                f"{title} diverged at the learning rates {candidate[:2]}; try lower ones"
            )
        labels = torch.from_numpy(data.labels[of].astype(np.int64))
        return hits(logits, labels), -float(nn.functional.cross_entropy(logits, labels))

    key = storage.digest(
        [
            start,
            train.digest,
            known.tolist(),
            len(asked),
            candidates,
            size,
            most,
            min_scale,
            seed,
            precision,
        ]
    )
    place, best = storage.locate(run), candidates[0]
    memory, folders = (
        f"{place}/chosen.json",
        [f"{place}/lr {lr:g} {head:g}, {n} epochs" for lr, head, n in candidates],
    )
    if len(candidates) > 1:
        if "chosen.json" not in storage.listing(place):
            scores = [(-1.0, 0.0)] * len(candidates)  # of those that diverge
            for number, (candidate, folder) in enumerate(zip(candidates, folders, strict=True)):
                with suppress(Diverged):
                    right, likelihood = trial(kept, candidate, folder, train, asked)
                    scores[number] = accuracy_of(right).top1, likelihood
            if max(scores)[0] < 0:
                raise CareError(
                    f"fine-tuning diverged at all of the learning rates {lrs}; try lower ones"
                )
            storage.write_json(
                memory, {"key": key, "best": scores.index(max(scores)), "scores": scores}
            )
        if (before := storage.read_json(memory))["key"] != key:
            raise CareError(
                f"{run} was fine-tuned with other images or settings; repeat those, or choose a new run directory"
            )
        best = candidates[before["best"]]
    for folder in folders:  # that of a URL has a local copy
        shutil.rmtree(local_copy(folder), ignore_errors=True)
        for name in storage.listing(folder, deep=True):
            storage.remove(f"{folder}/{name}")
    right, _ = trial(known, best, f"{place}/all labels", val, np.arange(len(val)))
    protocol = f"the whole network fine-tuned on {len(known)} labelled images, crops of {size} px, batch {min(most, len(known))}, learning"
    protocol += (
        f" rates and epochs the best of {len(candidates)} on held-out ones"
        if len(candidates) > 1
        else " rates and epochs as given"
    )
    chosen = {"lrs": best[:1], "head_lrs": best[1:2], "epochs": best[2:]}
    return Evaluation(
        f"{100 * len(known) / len(train):.0f} % of the labels",
        protocol,
        accuracy_of(right)._asdict(),
        chosen,
        resampled_mean(right[:, 0]),
    )


class _Classifier(nn.Module):
    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, where = copy.deepcopy(encoder), next(encoder.parameters()).device
        self.head = nn.Linear(encoder.features, classes, device="meta").to_empty(
            device=where
        )  # draws nothing
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        images = x.to(self.head.weight.device).contiguous(memory_format=torch.channels_last)
        return nn.functional.linear(self.encoder(images).features, self.head.weight, self.head.bias)
