"""A training step of each objective beside lightly's (nox -s bench -- objectives).

The same encoder, views and widths of the heads; each peer is a process of its own, so that its
memory can be told, and they take their steps in turn.
"""

import argparse
import importlib
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple
from rich.console import Console
from rich.table import Table
from tests.bench.peers import Peer, peak_memory, serve
from tests.bench.timing import keep_memory

ENCODER, SIZE, BATCH_SIZE = "resnet18-small-half", 64, 64
QUEUE, PROTOTYPES = 65_536, 3000
GLOBAL = (SIZE, SIZE)
SMALL_CROPS = 4 * (SIZE // 2,)
# what a peer imports before its memory is looked at
MODULES = {
    "care": ("care.train.losses", "care.objectives.by_name"),
    "lightly": ("care.encoders", "lightly.loss", "lightly.models.modules", "lightly.models.utils"),
}


class Row(NamedTuple):
    """An objective and the sides of its views, pixels."""

    objective: str
    sides: tuple[int, ...] = GLOBAL

    def __str__(self) -> str:
        small = len(self.sides) - 2
        crops = f", 2 × {SIZE} + {small} × {self.sides[-1]} px" if small else ""
        return self.objective + crops


ROWS = (
    Row("byol"),
    Row("simsiam"),
    Row("simclr"),
    Row("moco-v2"),
    Row("swav"),
    Row("swav", GLOBAL + SMALL_CROPS),
    Row("barlow-twins"),
)


def be_peer(kind: str, row: Row) -> None:
    """Take steps of ours or of lightly's."""
    import torch

    keep_memory()
    torch.manual_seed(0)
    views = [
        torch.randn(BATCH_SIZE, 3, side, side).contiguous(memory_format=torch.channels_last)
        for side in row.sides
    ]
    # modules are no memory of a step
    for name in MODULES[kind]:
        importlib.import_module(name)
    before = peak_memory()
    with ExitStack() as stack:
        step = care_step(stack, row) if kind == "care" else lightly_step(row)
        serve(lambda: step(views), before)


def care_step(stack: ExitStack, row: Row) -> Callable[[Sequence], None]:
    """Our step, as ``pretrain`` takes it."""
    import torch
    from care import c_stream_for
    from care.objectives import MoCoV2, SwAV
    from care.objectives.by_name import OBJECTIVES
    from care.train.losses import Losses

    fitted = {
        "moco-v2": lambda: MoCoV2(queue=QUEUE),
        "swav": lambda: SwAV(prototypes=PROTOTYPES, frozen_steps=0),
    }
    make = fitted.get(row.objective, lambda: OBJECTIVES[row.objective])
    c = c_stream_for(ENCODER, objective=make())
    model = Losses(c, None, 0.0).to(memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    stack.enter_context(model.computing("fp32", SIZE))

    def step(views: Sequence[torch.Tensor]) -> None:
        model(views)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        c.update(0.99)

    return step


def lightly_step(row: Row) -> Callable[[Sequence], None]:
    """lightly's step with the same encoder."""
    import torch
    from torch import nn
    from care.encoders import build_encoder
    from tests.bench.lightly_byol import lightly_step as lightly_byol_step
    from tests.bench.lightly_objectives import lightly_losses, lightly_training

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder(ENCODER)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(x).features

    backbone = Pooled()
    if row.objective == "byol":
        step = lightly_byol_step(backbone, backbone.encoder.features)
        return lambda views: step(*views)
    networks, loss = lightly_losses(
        row.objective, backbone, backbone.encoder.features, queue=QUEUE, prototypes=PROTOTYPES
    )
    return lightly_training(networks.train(), loss)


def compare(row: Row, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of a step and MiB of ours and lightly's, taken in turn."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(
                Peer(__file__, "--serve", kind, row.objective, *map(str, row.sides))
            )
            for kind in ("care", "lightly")
        ]
        seconds = [[peer() for peer in peers] for _ in range(rounds)]
        medians = [statistics.median(of_peer) for of_peer in zip(*seconds, strict=True)]
        return medians, [peer.memory for peer in peers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="one objective")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, objective, *sides = options.serve
        be_peer(kind, Row(objective, tuple(map(int, sides))))
        return
    table = Table(
        "objective",
        "ms a step",
        "lightly's",
        "speed",
        "MiB",
        "lightly's",
        title=f"{ENCODER}, {SIZE} px, batch {BATCH_SIZE}, {options.rounds} rounds",
        title_justify="left",
    )
    ratios = []
    for row in ROWS:
        if options.only in (None, row.objective):
            (ours, theirs), memory = compare(row, options.rounds)
            ratios.append(theirs / ours)
            cells = [f"{ours * 1e3:.0f}", f"{theirs * 1e3:.0f}", f"{ratios[-1]:.2f}×"]
            table.add_row(str(row), *cells, *(f"{of_peer:.0f}" for of_peer in memory))
    Console(width=100).print(table)
    print(f"median {statistics.median(ratios):.2f}×")


if __name__ == "__main__":
    main()
