"""Two views of a batch at once, a thread each, where a CPU computes.

Until the loss the views do not meet: each goes through the same networks by itself. Two threads
that meet twice a step, after the forward and after the backward pass, use two cores better than
threads that meet in each of a step's thousands of small operations, and they lose less beside a
busy process, which holds up everybody who waits for a core. Of more than two views, two at a time
go forward. Whether the threads run at the same time changes no bit: one core gives the results of
two.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeVar
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from care.encoded import bands_of
from care.momentum import MomentumPair, Siamese
from care.streams import GLOBAL_VIEWS, CStream, CStreamOut, Maps, TStream, TStreamOut
from care.train.precision import Precision, stream_precision
from care.train.ranks import limit_threads
from shards.image_size import ImageSize, sides

Output = TypeVar("Output")


class ViewOut(NamedTuple):
    """What becomes of one view.

    Attributes:
        online: embeddings of the C-stream and then, if there is one and the view is global, of the
            T-stream.
        target: those of the target networks, likewise; none of a view that is not global.
        maps: the tapped feature maps of the encoder and of the target encoder, of a global view.
    """

    online: tuple[Float[Tensor, "b d"], ...]
    target: tuple[Float[Tensor, "b d"], ...]
    maps: tuple[Float[Tensor, "b c h w"], ...]


class OneView(nn.Module):
    """Both streams, for one view at a time.

    Args:
        c: the C-stream.
        t: the T-stream, or None.
        t_precision: of the T-stream, see ``stream_precision``.
    """

    def __init__(self, c: CStream, t: TStream | None, t_precision: Precision | None) -> None:
        super().__init__()
        self.c = c
        self.t = t
        self._t_precision = t_precision

    def forward(self, x: Float[Tensor, "b _ h w"], *, is_global: bool = True) -> ViewOut:
        """Take a view through encoder, heads and, if there is one, transformer.

        Args:
            x: the view.
            is_global: whether it is one of the two that target networks and T-stream see.
        """
        if not is_global:
            (encoded,), _ = self.c.backbone([x], [])
            (embedding,), _ = self.c.embed([encoded.features], [])
            return ViewOut((embedding,), (), ())
        (online,), (target,) = self.c.backbone([x], [x])
        (c_online,), (c_target,) = self.c.embed([online.features], [target.features])
        maps = (online.map, target.map)
        if self.t is None:
            return ViewOut((c_online,), (c_target,), maps)
        with stream_precision(x.device, self._t_precision) as cast:
            online_map = cast(online.map)
            target_map = cast(target.map.detach())
            (t_online,), (t_target,) = self.t.embed_maps([online_map], [target_map])
        return ViewOut((c_online, t_online), (c_target, t_target), maps)


@contextmanager
def views_in_threads(
    c: CStream,
    t: TStream | None,
    *,
    size: ImageSize,
    t_precision: Precision | None = None,
) -> Iterator["ViewThreads | None"]:
    """Divide this process's threads between two views for the length of the block.

    Args:
        c: the C-stream, on the CPU, in train mode.
        t: the T-stream, or None.
        size: of the views, pixels.
        t_precision: of the T-stream, see ``stream_precision``.

    Yields:
        What embeds two views; None where streams or pairs are the caller's own classes, or do not
        fit (``ViewThreads.fits``): torch's threads then share every operation.
    """
    if not _are_ours(c, t):
        yield None
        return
    limit_threads()
    threads = torch.get_num_threads()
    with closing(ViewThreads(c, t, threads=threads, t_precision=t_precision)) as view_threads:
        if not view_threads.fits(size):
            yield None
            return
        torch.set_num_threads(max(threads // 2, 1))
        try:
            yield view_threads
        finally:
            torch.set_num_threads(threads)


def _are_ours(c: CStream, t: TStream | None) -> bool:
    """Whether streams and pairs are of classes of which is known what they do with a view."""
    if type(c) is not CStream or (t is not None and type(t) is not TStream):
        return False
    pairs = [c.backbone, c.projector]
    if t is not None:
        pairs += [t.backbone, t.projector]
    return all(type(pair) in (Siamese, MomentumPair) for pair in pairs)


class ViewThreads:
    """The views of a batch through both streams, every other one in a second thread.

    The networks of the second thread share every parameter and buffer with those of the first, but
    the running statistics of batch norms in train mode. These they keep for themselves, until they
    join the first's after the forward pass of each two views: so the statistics are updated in the
    order of the views, whichever is ready first.

    Args:
        c: the C-stream, in train mode, in its final memory layout.
        t: the T-stream, or None.
        threads: computing threads of both views together; the views are computed one after the
            other where torch's number, for one view, leaves none for a second.
        t_precision: of the T-stream, see ``stream_precision``.
    """

    def __init__(
        self,
        c: CStream,
        t: TStream | None,
        *,
        threads: int,
        t_precision: Precision | None = None,
    ) -> None:
        self._first = OneView(c, t, t_precision)
        modules = self._first.modules()
        norms = [norm for norm in modules if isinstance(norm, _BatchNorm) and _averages(norm)]
        statistics = {id(buffer) for norm in norms for buffer in norm.buffers()}
        tensors = (*self._first.parameters(), *self._first.buffers())
        # what deepcopy finds here it does not copy; it puts its copies there
        copies: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
        for number in statistics:
            del copies[number]
        self._second = copy.deepcopy(self._first, copies)
        self._norms = [(norm, copies[id(norm)]) for norm in norms]
        self._forget_second_statistics()
        self._trained = [p for p in self._first.parameters() if p.requires_grad]
        self._threads = threads
        self._pool = ThreadPoolExecutor(1, "view")

    def __call__(
        self,
        *views: Float[Tensor, "b _ _ _"],
        samples: Int[Tensor, " b"] | None = None,
    ) -> tuple[CStreamOut, TStreamOut | None]:
        """Embed views.

        A backward pass through the embeddings goes on in the threads.

        Args:
            *views: two, and perhaps small ones behind them.
            samples: numbers of the images, for an objective with a bank.

        Returns:
            What ``c(*views)``, and ``t`` of its maps, give; the maps without gradient.
        """
        self._first.c.objective.check_views(len(views))
        enabled = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu")

        def view(network: OneView, x: Tensor, *, is_global: bool) -> ViewOut:
            # a thread has its own autocast; without its cache, which all threads would share, and
            # in which a view would find nothing: it uses each weight once
            with torch.autocast("cpu", dtype, enabled=enabled, cache_enabled=False):
                out: ViewOut = network(x, is_global=is_global)
            return out

        outs: list[ViewOut] = []
        for number in range(0, len(views) - 1, 2):
            first, second = views[number : number + 2]
            is_global = number < GLOBAL_VIEWS
            outs += self._both(
                partial(view, self._first, first, is_global=is_global),
                partial(view, self._second, second, is_global=is_global),
            )
            self._join_statistics()
        if len(views) % 2:
            outs.append(view(self._first, views[-1], is_global=len(views) <= GLOBAL_VIEWS))
        return self._joined(outs, samples)

    def computing(self) -> int:
        """Threads that compute at a time, in both views where torch's number leaves any."""
        threads = torch.get_num_threads()
        return 2 * threads if 2 * threads <= self._threads else threads

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()

    def fits(self, size: ImageSize) -> bool:
        """Whether the streams may be computed so, tried on two blank images of ``size`` px.

        They may not where a network draws random numbers (dropout, stochastic depth), of which
        threads would take turns in no fixed order, or where it keeps a state from step to step
        that is no batch norm's running mean, such as a cumulative one.
        """
        generator = torch.get_rng_state()
        buffers = dict(self._second.named_buffers())
        state = {name: buffer.clone() for name, buffer in buffers.items()}
        bands = bands_of(self._first.c.backbone.online)
        example = next(self._second.parameters()).new_zeros(2, bands, *sides(size))
        with torch.no_grad():
            self._second(example)
        drew = not torch.equal(generator, torch.get_rng_state())
        torch.set_rng_state(generator)
        self._forget_second_statistics()
        kept = all(torch.equal(state[name], now) for name, now in self._second.named_buffers())
        for name, buffer in buffers.items():  # most are the first view's, too
            buffer.data.copy_(state[name])
        return kept and not drew

    def _joined(
        self, outs: Sequence[ViewOut], samples: Int[Tensor, " b"] | None
    ) -> tuple[CStreamOut, TStreamOut | None]:
        """What both streams give for all views, to be differentiated in the threads."""
        embeddings = list(chain.from_iterable(out.online for out in outs))
        # where those of each view begin
        starts = list(accumulate((len(out.online) for out in outs), initial=0))
        of_first = list(chain.from_iterable(map(range, starts[:-1:2], starts[1::2])))
        of_second = list(chain.from_iterable(map(range, starts[1:-1:2], starts[2::2])))

        def backward(gradients: Sequence[Tensor]) -> None:
            # those of earlier parts of a batch wait: a sum of three would depend on who is first
            earlier = [parameter.grad for parameter in self._trained]
            for parameter in self._trained:
                parameter.grad = None
            self._both(
                partial(self._accumulate, embeddings, gradients, of_first),
                partial(self._accumulate, embeddings, gradients, of_second),
            )
            self._add(earlier)

        needed = torch.zeros((), requires_grad=True)
        detached = [embedding.detach() for embedding in embeddings]
        online = _Backward.apply(needed, backward, *detached)
        seen = outs[:GLOBAL_VIEWS]
        maps = Maps(
            tuple(out.maps[0].detach() for out in seen), tuple(out.maps[1].detach() for out in seen)
        )
        c_online = tuple(online[start] for start in starts[:-1])
        c_target = tuple(out.target[0] for out in seen)
        c_out = self._first.c.output(c_online, c_target, maps, samples)
        if self._first.t is None:
            return c_out, None
        t_online = tuple(online[start + 1] for start in starts[: len(seen)])
        t_target = tuple(out.target[1] for out in seen)
        return c_out, TStreamOut(t_online, t_target, self._first.t.criterion)

    def _accumulate(
        self,
        embeddings: Sequence[Tensor],
        gradients: Sequence[Tensor],
        numbers: Sequence[int],
    ) -> None:
        """Add the gradients through some of the embeddings to those of the parameters.

        Both threads do so at the same time, into the same tensors: autograd locks each of them, and
        a sum of two floats does not depend on their order.
        """
        torch.autograd.backward(
            [embeddings[number] for number in numbers],
            [gradients[number] for number in numbers],
            inputs=self._trained,
        )

    def _add(self, earlier: Sequence[Tensor | None]) -> None:
        """Add gradients that were there before to those of the parameters."""
        sums: list[Tensor] = []
        summands: list[Tensor] = []
        for parameter, summand in zip(self._trained, earlier, strict=True):
            if parameter.grad is None:
                parameter.grad = summand
            elif summand is not None:
                sums.append(parameter.grad)
                summands.append(summand)
        if sums:
            torch._foreach_add_(sums, summands)

    def _both(
        self,
        first: Callable[[], Output],
        second: Callable[[], Output],
    ) -> tuple[Output, Output]:
        """Do two things at once where there are threads for both, else after each other."""
        threads = torch.get_num_threads()
        if 2 * threads > self._threads:
            return first(), second()

        def second_there() -> Output:
            torch.set_num_threads(threads)  # each thread has its own number
            return second()

        later = self._pool.submit(second_there)
        try:
            output = first()
        finally:  # nothing goes on behind the back of an error
            later.exception()
        return output, later.result()

    def _join_statistics(self) -> None:
        """Let the first view's running statistics go on by what the second view has seen."""
        for first, second in self._norms:
            uses = int(second.num_batches_tracked)  # none of a norm that the step leaves out
            for name in ("running_mean", "running_var"):
                # the second began at 0 and holds momentum · statistic; data: the backward pass, for
                # which batch norm keeps a running statistic though in training it reads none, is
                # not to count this as a change of something that it needs
                statistic, of_second = getattr(first, name).data, getattr(second, name)
                statistic.mul_((1 - float(first.momentum or 0)) ** uses).add_(of_second)
            if first.num_batches_tracked is not None:
                first.num_batches_tracked += uses
        self._forget_second_statistics()

    def _forget_second_statistics(self) -> None:
        for _, norm in self._norms:
            for buffer in norm.buffers():
                buffer.data.zero_()


class _Backward(torch.autograd.Function):
    """The embeddings as they are, their gradients handed to a function."""

    @staticmethod
    def forward(
        context: Any,
        _needed: Tensor,
        backward: Callable[[Sequence[Tensor]], None],
        *embeddings: Tensor,
    ) -> tuple[Tensor, ...]:
        context.hand_over = backward
        return tuple(embedding.view_as(embedding) for embedding in embeddings)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, ...]:
        context.hand_over(gradients)
        return (None, None, *[None] * len(gradients))


def _averages(norm: _BatchNorm) -> bool:
    """Whether it keeps a running mean, now: one in eval mode is frozen."""
    is_torchs = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    keeps_mean = norm.momentum is not None and norm.running_mean is not None
    return is_torchs and keeps_mean and norm.training
