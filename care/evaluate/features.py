"""Features of a frozen encoder, and what every evaluation shares: crops with labels, scores, the record of a result."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, tee
from pathlib import Path
from typing import Annotated, Any, NamedTuple
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import center_crop, resize
import shards
from care.encoders import Encoder, evaluating
from care.errors import CareError
from care.evaluate.neighbours import nearest
from care.evaluate.resampling import resampled_mean
from care.train import ranks
from care.train.batches import CroppedViews, load_examples
from care.train.loading import worker_count
from care.train.photometrics import normalize
from care.train.precision import Precision, autocast
from care.train.run import Run
from care.train.views import View
from care.train.weights import digest_of
from shards import storage
from shards.terminal import Count, Natural, Range, Side, progress

Rows = NDArray[np.int64]


class Evaluation(NamedTuple):
    """How good an encoder is at a task, judged by a protocol; the keywords in ``chosen`` are what held-out images chose."""

    task: str  # results of one name are comparable: with each other on the same data, with the paper's on ImageNet
    protocol: str
    measures: dict[str, float]  # in per cent
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never changed)
    resampled: list[float] = []  # noqa: RUF012 (the first measure on the draws of ``resampling``)


class Features(NamedTuple):
    """Pooled features of a labelled set, on the CPU."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    classes: int


class Accuracy(NamedTuple):
    """Per cent of the images whose class is the first, or among the first five predictions (or all classes, where fewer)."""

    top1: float
    top5: float


class _Centres(Dataset[np.ndarray]):
    def __init__(self, data: shards.ShardSet, size: int) -> None:
        self.data, self.size = data, size

    def __getitem__(self, row: int) -> np.ndarray:
        return np.array(centre_crop(self.data.image(row), self.size)).transpose(2, 0, 1)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Short side to size · 256 / 224 (bilinear), then the central ``size`` × ``size`` px: the paper's test transform."""
    cropped: Image.Image = center_crop(resize(image, [round(size * 256 / 224)]), [size])
    return cropped


def centres(
    data: shards.ShardSet, batches: Iterable[list[int]], *, size: int, workers: int = 0
) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """Batches of images by number, centre-cropped and normalised."""
    return (
        normalize(pixels.float() / 255) for pixels in load_examples(_Centres(data, size), batches, workers)
    )


def crops(
    state: Run, data: shards.ShardSet, rows: Rows, workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random crops and flips [b, 3, size, size] of some ``rows`` of a set for the steps that a run has left, with labels and rows [b]."""
    size, min_scale, batch_size, steps, seed = (
        state.settings[name] for name in ("size", "min_scale", "batch_size", "steps", "seed")
    )
    view = View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0)
    asked, order = tee(
        shards.step_ids(len(rows), batch_size=batch_size, step=step, seed=seed)
        for step in range(state.start, steps)
    )
    examples = load_examples(
        CroppedViews(data, size, seed, (view,)),
        ([(epoch, int(row)) for row in rows[ids]] for epoch, ids in asked),
        workers,
    )
    for (_, ids), (pixels, _) in zip(order, examples, strict=True):
        labels = torch.from_numpy(data.labels[rows[ids]].astype(np.int64))
        yield normalize(pixels[:, 0].float() / 255), labels, torch.from_numpy(rows[ids])


def frozen(
    encoder: Encoder, images: Float[Tensor, "b 3 h w"], precision: Precision
) -> Float[Tensor, "b d"]:
    """Float32 features of normalised images, on the encoder's device, without gradient."""
    where = next(encoder.parameters()).device
    with torch.no_grad(), autocast(where, precision):
        features: Tensor = encoder(
            images.to(where).contiguous(memory_format=torch.channels_last)
        ).features
    return features.float()


def extract(
    encoder: Encoder,
    data: shards.ShardSet,
    *,
    size: int,
    batch_size: int = 256,
    workers: int | None = None,
    precision: Precision = "fp32",
    cache: str | Path | None = None,
    only: Iterable[int] | None = None,
) -> Features:
    """Features of the centre crop, ``size`` px, of every image of a labelled set, by the encoder in eval mode, without gradient.

    Those of a shard are a pure function of encoder, shard, size and precision: with a ``cache``, a directory or URL that machines share,
    each may extract ``only`` the shards of some numbers, and a last call finds them all. Images without label are a ``CareError``.
    """
    if len(data) == 0 or bool((data.labels < 0).any()):
        raise CareError(
            f"{data.path} has images without a class; evaluation needs a set built from class folders"
        )
    starts, numbers = (
        data.index.starts,
        [*(range(len(data.index.shards)) if only is None else only)],
    )
    folder = (
        storage.locate(cache) / storage.digest([digest_of(encoder), data.digest, size, precision])
        if cache
        else None
    )
    parts = dict[int, Tensor]()
    for n in numbers if folder else ():
        with suppress(
            FileNotFoundError, NotADirectoryError, SafetensorError
        ):  # what a damaged file had is extracted again
            parts[n] = load(storage.read_bytes(f"{folder}/{n}.safetensors"))["x"]
    left = {
        n: range(starts[n], starts[n + 1])
        for n in numbers
        if n not in parts and starts[n + 1] > starts[n]
    }
    batches = [
        [*rows[at : at + batch_size]]
        for rows in left.values()
        for at in range(0, len(rows), batch_size)
    ]
    ranks.limit_threads()
    where, batch_bytes = next(encoder.parameters()).device, batch_size * 3 * size**2
    workers = worker_count(workers, where, batches=len(batches), batch_bytes=batch_bytes)
    with (
        progress(f"features of {data.path}", sum(map(len, left.values()))) as advance,
        evaluating(encoder),
    ):
        stream = centres(data, batches, size=size, workers=workers)
        for number, rows in left.items():
            found = list[Tensor]()
            for images in islice(stream, -(-len(rows) // batch_size)):
                found.append(frozen(encoder, images, precision).cpu())
                advance(len(images), "")
            parts[number] = torch.cat(found)
            if folder:
                storage.write_bytes(folder / f"{number}.safetensors", save({"x": parts[number]}))
    x = torch.cat(
        [torch.empty(0, encoder.features), *(parts[n] for n in numbers if n in parts)]
    )  # a shard may be empty
    ids = [row for n in numbers for row in range(starts[n], starts[n + 1])]
    return Features(x, torch.from_numpy(data.labels[ids].astype(np.int64)), len(data.classes))


def same_classes(train: shards.ShardSet, val: shards.ShardSet) -> None:
    """Refuse two sets whose labels mean different classes by a ``CareError`` that names those that only one of them has."""
    if train.classes != val.classes:
        only = ", ".join(sorted({*train.classes} ^ {*val.classes})[:5])
        raise CareError(
            f"{train.path} and {val.path} must have the same classes; only one of them has: {only}"
        )


def all_known(labels: Int[Tensor, " n"], classes: int) -> None:
    """Refuse labels that are no class by a ``CareError`` with their range."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise CareError(
            f"wanted labels from 0 to {classes - 1}, got some from {int(labels.min())} to {int(labels.max())}"
        )


def accuracy(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Accuracy:
    """Top-1 and top-5 of the highest scores; a label that is no class is a ``CareError``."""
    return accuracy_of(hits(scores, labels))


def hits(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Bool[Tensor, "n 2"]:
    """Whether an image's class has the highest score, and whether one of the five highest.

    Args:
        scores: of every image and class.
        labels: classes by number.

    Raises:
        CareError: a label is no class.
    """
    all_known(labels, scores.shape[1])
    right = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack((right[:, 0], right.any(1)), 1)


def accuracy_of(right: Bool[Tensor, "n 2"]) -> Accuracy:
    """The mean over images of what ``hits`` gives."""
    top1, top5 = right.float().mean(0).tolist()
    return Accuracy(100 * top1, 100 * top5)


def knn(
    encoder: Encoder,
    train: shards.ShardSet,
    val: shards.ShardSet,
    *,
    size: Side | None = None,
    k: Count = 20,
    temperature: Annotated[float, Range(1e-3)] = 0.07,
    precision: Precision = "fp32",
    workers: Natural | None = None,
    cache: str | Path | None = None,
) -> Evaluation:
    """Weighted nearest neighbours on frozen features of centre crops; nothing is trained or chosen.

    Args:
        encoder: used on the device it is on.
        train: set whose labels vote.
        val: set to classify; other classes, or images without one, are a ``CareError``.
        size: side of the crops, pixels; by default that of the encoder's training.
        k: neighbours; DINO's protocol has 20, instance discrimination's 200.
        temperature: of the votes' weights; DINO's is 0.07, instance discrimination's 0.1.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.
        cache: see ``extract``.
    """
    same_classes(train, val)
    size = size or encoder.size
    known, asked = (
        extract(encoder, data, size=size, workers=workers, precision=precision, cache=cache)
        for data in (train, val)
    )
    protocol = f"weighted nearest neighbours on frozen features (k {k}, temperature {temperature:g}), centre crops of {size} px"
    device = next(encoder.parameters()).device
    right = knn_hits(known, asked, k=k, temperature=temperature, device=device)
    return Evaluation(
        "kNN",
        f"{protocol}; nothing is trained or chosen",
        accuracy_of(right)._asdict(),
        resampled=resampled_mean(right[:, 0]),
    )


def weighted_knn(
    train: Features,
    val: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Accuracy:
    """Accuracy of ``knn_hits``, whose arguments these are."""
    right = knn_hits(train, val, k=k, temperature=temperature, device=device)
    return accuracy_of(right)


def knn_hits(
    train: Features,
    val: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "n 2"]:
    """Which of val's images are classified rightly by a vote of their nearest training images.

    The ``k`` training images (or all) of highest cosine vote with weight exp(cosine / temperature)
    for their class (Wu et al. 2018).

    Args:
        train: features and labels that vote; on the CPU, as val's are.
        val: features to classify and their labels.
        k: neighbours.
        temperature: of the votes' weights.
        device: where the cosines are computed, in the memory that ``choose_blocks`` allows.

    Returns:
        ``hits`` of the votes [n, 2].

    Raises:
        CareError: a label of val is no class of train.
    """
    all_known(val.y, train.classes)
    neighbours = nearest(val.x, train.x, k, device=device)
    right = [torch.empty(0, 2, dtype=torch.bool)]
    # on the CPU, where the votes of a class are always added in the same order
    for rows in torch.split(torch.arange(len(val.x)), 1024):
        weights = ((neighbours.cosines[rows] - 1) / temperature).exp()
        votes = torch.zeros(len(rows), train.classes)
        votes.scatter_add_(1, train.y[neighbours.rows[rows]], weights)
        right.append(hits(votes, val.y[rows]))
    return torch.cat(right)
