"""The losses of both streams as one module, of the whole batch however many processes share it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care import CStream, TStream, care_loss
from care.streams import CStreamOut, Maps, TStreamOut
from care.train import ranks
from care.train.collapse import spread
from care.train.precision import Precision, stream_precision
from care.train.view_threads import ViewThreads, views_in_threads

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
    def computing(self, t_precision: Precision, size: int) -> Iterator[None]:
        """Be ready for a training for the length of the block.

        A CPU that computes alone has a thread for each view; GPUs and groups have none.

        Args:
            t_precision: of the T-stream, which may not be that of the caller's autocast.
            size: side of the views, pixels.
        """
        self._t_precision = t_precision
        device = next(self.parameters()).device
        if device.type != "cpu" or ranks.world() > 1:
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
        x1: Float[Tensor, "b 3 h w"],
        x2: Float[Tensor, "b 3 h w"],
    ) -> dict[str, Tensor]:
        """Compute the terms of Eq. 5 for the two views of a batch.

        Returns:
            Scalars by the names of ``TERMS``; ``total`` is to be minimised, ``spread`` tells of
            collapse.
        """
        embed = self._view_threads or self._embed
        c_out, t_out = embed(x1, x2)
        c_out = _gather(c_out)
        t_out = None if t_out is None else _gather(t_out)
        loss = care_loss(c_out, t_out, attention_weight=self.weight)
        return {
            "cnn": loss.cnn,
            "transformer": loss.transformer,
            "attention": loss.attention,
            "total": loss.total,
            "spread": spread(c_out.target[0]),
        }

    def _embed(self, x1: Tensor, x2: Tensor) -> tuple[CStreamOut, TStreamOut | None]:
        c_out = self.c(x1, x2)
        if self.t is None:
            return c_out, None
        with stream_precision(x1.device, self._t_precision) as cast:
            (online1, online2), (target1, target2) = c_out.maps
            maps = Maps((cast(online1), cast(online2)), (cast(target1), cast(target2)))
            return c_out, self.t(maps)


def _gather(out: StreamOut) -> StreamOut:
    """A stream's embeddings of all processes' images in the place of this one's."""
    online1, online2 = out.online
    target1, target2 = out.target
    return out._replace(
        online=(ranks.gather_rows(online1), ranks.gather_rows(online2)),
        target=(ranks.gather_rows(target1), ranks.gather_rows(target2)),
    )
