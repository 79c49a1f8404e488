"""Images as evaluations show them: centre crops, and random crops with labels."""

from collections.abc import Iterable, Iterator
from itertools import tee
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import center_crop, resize
import shards
from care.train.batches import CroppedViews, load_examples
from care.train.photometrics import normalize
from care.train.run import Run
from care.train.views import View

Rows = NDArray[np.int64]


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
        normalize(pixels.float() / 255)
        for pixels in load_examples(_Centres(data, size), batches, workers)
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
