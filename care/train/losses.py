"""The losses of both streams as one module, of the whole batch however many processes share it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
import torch
from jaxtyping import Int
from torch import Tensor, nn
from care import CStream, TStream, care_loss
from care.streams import CStreamOut, Maps, TStreamOut
from care.train import ranks
from care.train.collapse import spread
from care.train.precision import Precision, stream_precision
from care.train.view_threads import ViewThreads, views_in_threads
from shards.image_size import ImageSize

TERMS = ("cnn", "transformer", "attention", "total", "spread")

StreamOut = TypeVar("StreamOut", CStreamOut, TStreamOut)


class Losses(nn.Module):
    """Both streams and their loss as one module, to be called once a step.

    On several processes each gives its slice of the views and gets the loss of the whole batch,
    whatever the objective.

    Args:
        c: the C-stream.
        t: the T-stream, or None for the C-stream alone.
        attention_weight: λ of Eq. 5.

    Attributes:
        pairs: all networks that may have a target.
        criteria: the losses of the streams, and what these keep from step to step.
    """

    def __init__(self, c: CStream, t: TStream | None, attention_weight: float) -> None:
        super().__init__()
        self.c = c
        self.t = t
        self.weight = attention_weight
        streams = [c] if t is None else [c, t]
        self.pairs = [pair for stream in streams for pair in (stream.backbone, stream.projector)]
        self.criteria = [stream.criterion for stream in streams]
        self._view_threads: ViewThreads | None = None
        self._t_precision: Precision | None = None

    @contextmanager
    def computing(
        self, t_precision: Precision, size: ImageSize, *, in_threads: bool = True
    ) -> Iterator[None]:
        """Be ready for a training for the length of the block.

        A CPU that computes alone has a thread for every other view; GPUs and groups have none.

        Args:
            t_precision: of the T-stream, which may not be that of the caller's autocast.
            size: of the views, pixels.
            in_threads: whether views may be divided between threads: there are at least two, and
                all are crops.
        """
        self._t_precision = t_precision
        device = next(self.parameters()).device
        if device.type != "cpu" or ranks.world() > 1 or not in_threads:
            yield
            return
        with views_in_threads(self.c, self.t, size=size, t_precision=t_precision) as view_threads:
            self._view_threads = view_threads
            yield

    def computing_threads(self) -> int:
        """Threads that compute at a time, in both views where each has its own."""
        if self._view_threads is not None:
            return self._view_threads.computing()
        return torch.get_num_threads()

    def forward(
        self,
        views: Sequence[Tensor],
        samples: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of Eq. 5 for the views of a batch.

        Args:
            views: of each image, see ``care.CStream``.
            samples: numbers of the images, for an objective with a bank.

        Returns:
            Scalars by the names of ``TERMS``; ``total`` is to be minimised, ``spread`` tells of
            collapse.
        """
        embed = self._view_threads or self._embed
        c_out, t_out = embed(*views, samples=samples)
        c_out = _gather(c_out)
        if c_out.samples is not None:
            c_out = c_out._replace(samples=ranks.gather_numbers(c_out.samples))
        t_out = None if t_out is None else _gather(t_out)
        loss = care_loss(c_out, t_out, attention_weight=self.weight)
        return {
            "cnn": loss.cnn,
            "transformer": loss.transformer,
            "attention": loss.attention,
            "total": loss.total,
            "spread": spread(c_out.target[0]),
        }

    def _embed(
        self, *views: Tensor, samples: Int[Tensor, " b"] | None
    ) -> tuple[CStreamOut, TStreamOut | None]:
        # a stream of the caller's own may know of two views alone
        of_batch = {"samples": samples} if self.c.criterion.uses_samples else {}
        c_out = self.c(*views, **of_batch)
        if self.t is None:
            return c_out, None
        with stream_precision(views[0].device, self._t_precision) as cast:
            online, target = c_out.maps
            maps = Maps(tuple(map(cast, online)), tuple(map(cast, target)))
            return c_out, self.t(maps)


def _gather(out: StreamOut) -> StreamOut:
    """A stream's embeddings of all processes' images in the place of this one's."""
    return out._replace(
        online=tuple(map(ranks.gather_rows, out.online)),
        target=tuple(map(ranks.gather_rows, out.target)),
    )
