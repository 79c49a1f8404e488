"""A verdict without labels: how good an encoder's features are, by what they make of views."""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
import shards
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.evaluation import Evaluation
from care.evaluate.features import device_of, frozen_features
from care.evaluate.images import Rows, centre_crops, views_of_images
from care.evaluate.label_free import alignment, lidar, neighbour_agreement, rankme, uniformity
from care.train import ranks
from care.train.loading import worker_count
from care.train.precision import Precision
from care.train.views import VIEWS
from shards.bounds import NonNegativeInt, PositiveInt, Range
from shards.image_size import ImageSize, image_size, sides
from shards.progress import progress

# crops that are encoded at once
CROPS_AT_ONCE = 256


class SeenImages(NamedTuple):
    """What an encoder makes of some images, float32 on the CPU.

    Attributes:
        centre: features of their centre crops.
        views: of several random views of each.
    """

    centre: Float[Tensor, "n d"]
    views: Float[Tensor, "n q d"]


def quality(  # noqa: PLR0913 (a public verb)
    encoder: Encoder,
    val: shards.ShardSet,
    *,
    size: ImageSize | None = None,
    images: PositiveInt = 1024,
    views: Annotated[int, Range(2)] = 4,
    k: PositiveInt = 10,
    precision: Precision = "fp32",
    workers: NonNegativeInt | None = None,
    seed: NonNegativeInt = 0,
) -> Evaluation:
    """Label-free quality of features: agreement, RankMe, LiDAR, alignment, uniformity.

    Protocol: some images are drawn from the set, and seen as the paper's views and as centre crops.
    No label is read, nothing is trained or chosen. The figures compare checkpoints of one training,
    or encoders of one architecture at one size; docs/evaluation.md has what each says.

    Args:
        encoder: used on the device it is on.
        val: set of images, with labels or without.
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        images: to draw from the set; all are taken where it has no more.
        views: random views of each image; LiDAR takes all of them, agreement and alignment the
            first two.
        k: neighbours whose agreement is measured; fewer where there are not so many images.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.
        seed: of the draw of images and of their views.

    Returns:
        ``agreement``, per cent of the ``k`` nearest neighbours of an image that are the same by two
        of its views; ``rankme`` of centre crops and ``lidar``, numbers of directions;
        ``alignment`` and ``uniformity``, of which less is better.

    Raises:
        CareError: The set has fewer than two images.

    Source: see ``care.evaluate.label_free``.
    """
    size = image_size(size or encoder.size)
    rows = draw_rows(len(val), images, seed=seed)
    if len(rows) < 2:
        raise CareError(f"wanted a set of at least 2 images, which make a pair, got {val.path}")
    seen = see_images(
        encoder,
        val,
        rows,
        size=size,
        views=views,
        precision=precision,
        workers=workers,
        seed=seed,
    )
    k = min(k, len(rows) - 1)
    return Evaluation(
        task="label-free quality",
        protocol=f"no labels are read: features of {len(rows):,} images of {size} px, {views} of "
        f"the paper's views of each; agreement of {k} neighbours, by chance "
        f"{100 * k / (len(rows) - 1):.1f} %; RankMe of centre crops; of alignment and uniformity "
        "less is better",
        measures=measures_of(seen, k, device=device_of(encoder)),
    )


def quality_probe(
    data: shards.ShardSet, *, size: ImageSize, seed: int = 0
) -> Callable[[Encoder], dict[str, float]]:
    """What ``pretrain`` calls on the way: the measures of ``quality`` by its own defaults.

    Args:
        data: set of images, such as those that are trained on.
        size: of the crops, pixels.
        seed: of the draw of images and of their views.
    """

    def probe(encoder: Encoder) -> dict[str, float]:
        """Judge an encoder as it is now."""
        return quality(encoder, data, size=size, seed=seed).measures

    return probe


def measures_of(seen: SeenImages, k: int, *, device: torch.device | str) -> dict[str, float]:
    """The measures of ``quality`` from features.

    Args:
        seen: of the images, at least two views of each.
        k: neighbours.
        device: where cosines are computed.
    """
    first, second = seen.views[:, 0].contiguous(), seen.views[:, 1].contiguous()
    agreement = neighbour_agreement(first, second, k, device=device)
    return {
        "agreement": 100 * float(agreement.mean()),
        "rankme": rankme(seen.centre),
        "lidar": lidar(seen.views),
        "alignment": alignment(first, second),
        "uniformity": uniformity(first),
    }


def draw_rows(count: int, wanted: int, *, seed: int) -> Rows:
    """Numbers of some images of a set, or of all, in their order.

    Args:
        count: images of the set.
        wanted: of them, at most.
        seed: of the draw.
    """
    # raw words, whose bits numpy promises for ever
    words = np.random.Philox(key=seed).random_raw(count)
    rows: Rows = np.sort(np.argsort(words, kind="stable")[:wanted])
    return rows


def see_images(
    encoder: Encoder,
    data: shards.ShardSet,
    rows: Rows,
    *,
    size: ImageSize,
    views: int,
    precision: Precision = "fp32",
    workers: int | None = None,
    seed: int = 0,
) -> SeenImages:
    """Features of centre crops and of random views of some images.

    The encoder is in eval mode, without gradient, and left in the mode it was in.

    Args:
        encoder: used on the device it is on.
        data: set of the images.
        rows: numbers of them.
        size: of the crops, pixels.
        views: of each image.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.
        seed: of the views.
    """
    images_at_once = max(CROPS_AT_ONCE // views, 1)
    batches = [[*map(int, part)] for part in _parts(rows, images_at_once)]
    ranks.limit_threads()
    workers = worker_count(
        workers,
        device_of(encoder),
        batches=2 * len(batches),
        batch_bytes=CROPS_AT_ONCE * 3 * sides(size).pixels,
    )
    distributions = tuple(VIEWS[number % len(VIEWS)] for number in range(views))
    of_centre = list[Tensor]()
    of_views = list[Tensor]()
    title = f"label-free quality on {data.path}"
    with progress(title, 2 * len(rows)) as advance, evaluating(encoder):
        for crops in centre_crops(data, batches, size=size, workers=workers):
            of_centre.append(frozen_features(encoder, crops, precision).cpu())
            advance(len(crops), "")
        for crops in views_of_images(
            data, batches, distributions, size=size, seed=seed, workers=workers
        ):
            features = frozen_features(encoder, crops.flatten(0, 1), precision).cpu()
            of_views.append(features.reshape(len(crops), views, -1))
            advance(len(crops), "")
    return SeenImages(torch.cat(of_centre), torch.cat(of_views))


def _parts(rows: Rows, length: int) -> Iterator[Rows]:
    """Consecutive parts of at most so many rows."""
    for start in range(0, len(rows), length):
        yield rows[start : start + length]
