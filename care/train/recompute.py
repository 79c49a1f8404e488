"""Activations that are computed again in the backward pass instead of kept: less memory, some time.

A block of a network then keeps its input alone. Its activations come back when its gradients are
due, by the same operations in the same order, and so gradients have the same bits. Batch norms
move their running statistics in the forward pass alone.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from care.encoders import ResNetEncoder
from care.streams import CStream, TStream

# which blocks compute their activations again: the first half of an encoder's, whose maps are
# large and cheap, or all of both streams
Recompute = Literal["none", "some", "all"]


class Block(NamedTuple):
    """Part of a network that may keep its input alone.

    Attributes:
        module: of which it is a method.
        method: its name.
    """

    module: nn.Module
    method: str = "forward"


@contextmanager
def recomputing(c: CStream, t: TStream | None, which: Recompute) -> Iterator[None]:
    """Let online networks compute activations again for the length of the block.

    Args:
        c: the C-stream.
        t: the T-stream, or None.
        which: of the blocks; "some" is the first half of the encoder's.
    """
    blocks = chosen_blocks(c, t, which)
    kinds = [type(block.module) for block in blocks]
    for block, kind in zip(blocks, kinds, strict=True):
        block.module.__class__ = _recomputing_class(kind, block.method)
    try:
        yield
    finally:
        for block, kind in zip(blocks, kinds, strict=True):
            block.module.__class__ = kind


def chosen_blocks(c: CStream, t: TStream | None, which: Recompute) -> list[Block]:
    """The blocks of the online networks that compute their activations again.

    Args:
        c: the C-stream.
        t: the T-stream, or None.
        which: of its blocks.
    """
    if which == "none":
        return []
    of_encoder = blocks_of(c.backbone.online)
    if which == "some":
        return of_encoder[: len(of_encoder) // 2]
    of_transformer = [] if t is None else blocks_of(t.backbone.online)
    return of_encoder + of_transformer


def blocks_of(network: nn.Module) -> list[Block]:
    """The blocks of a network, in the order of its modules.

    They are what a network has in a row: the items of its ``Sequential`` modules that have modules
    themselves, the innermost ones, such as the bottlenecks of a ResNet. A ResNet's stem is one.
    """
    blocks = list[Block]()
    for child in network.children():
        inner = blocks_of(child)
        if not inner and isinstance(network, nn.Sequential) and any(child.children()):
            inner = [Block(child)]
        blocks += inner
    if isinstance(network, ResNetEncoder):
        return [Block(network, "stem"), *blocks]
    return blocks


def _recomputing_class(kind: type[nn.Module], method: str) -> type[nn.Module]:
    """A class of modules like those of another, of which a method keeps its inputs alone."""
    compute: Callable[..., Any] = getattr(kind, method)

    def keep_inputs(module: nn.Module, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return compute(module, *inputs)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _buffers_kept(module)

        return checkpoint(compute, module, *inputs, use_reentrant=False, context_fn=contexts)

    return type(kind.__name__, (kind,), {method: keep_inputs, "__module__": kind.__module__})


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put the buffers of a module back behind the block, such as running statistics of norms."""
    buffers = [buffer.data for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)
