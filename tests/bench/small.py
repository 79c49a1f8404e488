"""A training step of small networks on a CPU (nox -s bench -- small).

Ours, both streams and the C-stream alone, beside lightly's BYOL and, with --before, beside another
checkout of this project. Each is a process that takes steps when it is asked to, so that builds of
one package can be interleaved; at last ours once more beside a process that never rests.
"""

import argparse
import inspect
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from tests.bench.peers import ROOT, Peer, peak_memory, serve
from tests.bench.timing import keep_memory


class Setting(NamedTuple):
    """A network and its batch."""

    encoder: str
    size: int  # px
    batch_size: int
    hidden: int

    def __str__(self) -> str:
        return f"{self.encoder}, {self.size} px, batch {self.batch_size}"


DEMO = Setting("resnet18-small-half", 48, 32, 1024)
SETTINGS = (DEMO, Setting("resnet18", 64, 64, 4096), Setting("resnet18", 96, 32, 4096))


def peer(root: Path, kind: str, setting: Setting) -> Peer:
    """A process that takes steps of one kind of training.

    Args:
        root: checkout whose packages it imports.
        kind: "both", "c" or "lightly".
        setting: network and batch.
    """
    return Peer(__file__, "--serve", kind, *map(str, setting), root=root)


def be_peer(kind: str, setting: Setting) -> None:
    """Take steps of one kind of training."""
    import torch

    keep_memory()
    shape = (2, setting.batch_size, 3, setting.size, setting.size)
    before = peak_memory()
    x1, x2 = (view.contiguous(memory_format=torch.channels_last) for view in torch.randn(shape))
    with ExitStack() as stack:
        make = lightly_byol_step if kind == "lightly" else care_step
        step = make(stack, setting, with_t=kind == "both")
        serve(lambda: step(x1, x2), before)


def care_step(stack: ExitStack, setting: Setting, *, with_t: bool) -> Callable[..., None]:
    """Our step, as ``pretrain`` takes it."""
    import torch
    from care import BYOL, streams_for
    from care.momentum import update_targets
    from care.train.losses import Losses

    objective = BYOL(hidden=setting.hidden)
    c, t = streams_for(setting.encoder, size=setting.size, objective=objective)
    model = Losses(c, t if with_t else None, 100.0).to(memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    stack.enter_context(model.computing("fp32", setting.size))
    # that of an earlier checkout takes two
    takes_all_views = "views" in inspect.signature(model.forward).parameters

    def step(x1: torch.Tensor, x2: torch.Tensor) -> None:
        losses = model((x1, x2)) if takes_all_views else model(x1, x2)
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        update_targets(model.pairs, 0.99)

    return step


def lightly_byol_step(_: ExitStack, setting: Setting, *, with_t: bool) -> Callable[..., None]:
    """lightly's BYOL on the same encoder."""
    import torch
    from torch import nn
    from care.encoders import build_encoder
    from tests.bench.lightly_byol import lightly_step

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder(setting.encoder)  # the same network for both

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(x).features

    backbone = Pooled()
    return lightly_step(backbone, backbone.encoder.features, hidden=setting.hidden)


def compare(setting: Setting, before: Path | None, rounds: int) -> None:
    """Print each peer's step beside ours."""
    peers = {
        "care, both streams": (ROOT, "both"),
        "care, C-stream alone": (ROOT, "c"),
        "lightly's BYOL": (ROOT, "lightly"),
    }
    if before:
        peers |= {"before, both streams": (before, "both"), "before, C-stream alone": (before, "c")}
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    with ExitStack() as stack:
        steppers = {
            name: stack.enter_context(peer(root, kind, setting))
            for name, (root, kind) in peers.items()
        }
        for _ in range(rounds):
            for name, stepper in steppers.items():
                seconds[name].append(stepper())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\n{setting}, {rounds} rounds")
    for name, median in medians.items():
        print(f"  {name:24} {median * 1e3:7.0f} ms a step")
    both, alone = medians["care, both streams"], medians["care, C-stream alone"]
    lightly = medians["lightly's BYOL"]
    print(f"  both streams over the C-stream alone: {both / alone:.2f}×")
    print(f"  C-stream alone beside lightly's BYOL: {lightly / alone:.2f}×")
    if before:
        print(
            f"  both streams beside the build before: {medians['before, both streams'] / both:.2f}×"
        )
        alone_before = medians["before, C-stream alone"]
        print(f"  C-stream alone beside the build before: {alone_before / alone:.2f}×")
        print(f"  before, both over one: {medians['before, both streams'] / alone_before:.2f}×")


def beside_a_busy_process(root: Path, name: str, rounds: int) -> None:
    """Print how much longer 20 steps take while another process never rests."""
    slowdowns = []
    with peer(root, "both", DEMO) as stepper:
        for _ in range(rounds):
            alone = stepper(20)
            neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                slowdowns.append(stepper(20) / alone)
            finally:
                neighbour.kill()
                neighbour.wait()
    print(
        f"{name}: 20 steps beside a busy process, over alone: {statistics.median(slowdowns):.2f}×"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, encoder, *numbers = options.serve
        be_peer(kind, Setting(encoder, *map(int, numbers)))
        return
    for setting in SETTINGS:
        compare(setting, options.before, options.rounds)
    beside_a_busy_process(ROOT, "care", 3)
    if options.before:
        beside_a_busy_process(options.before, "before", 3)


if __name__ == "__main__":
    main()
