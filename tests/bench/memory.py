"""Memory of a training step of ResNet-50 at 224 px (python -m tests.bench.memory).

Both streams, relative positions, float32. Each way to take the step is a process of its own, in
turn: it takes one step, then times as many as it is told by CPU time, which neighbours disturb less
than the clock. Every way has two peaks: that of what a step holds, where each large tensor is the
system's own memory again once it is freed, and that of the process as ``pretrain`` runs it, where
freed memory is kept. ``--before CHECKOUT`` adds another revision.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from tests.bench.peers import ROOT, peak_memory
from tests.bench.timing import keep_memory

SIZE = 224
# of which glibc makes a mapping of its own, given back when it is freed; a tensor of a step is more
OWN_MAPPING = str(64 * 1024)


class Measured(NamedTuple):
    """What a process tells of its steps.

    Attributes:
        cpu_seconds: of each step but the first.
        mib: the most that the process has had beyond what it had before the networks.
    """

    cpu_seconds: list[float]
    mib: float


def be_peer(recompute: str, batch: int, steps: int, *, keeps: bool) -> Measured:
    """Take steps one way.

    Args:
        recompute: which activations are computed again.
        batch: images a step.
        steps: that are timed.
        keeps: whether freed memory is kept.
    """
    import torch

    if keeps:
        keep_memory()
    torch.manual_seed(0)
    views = [
        torch.randn(batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    before = peak_memory()
    seconds = list[float]()
    with ExitStack() as stack:
        step = care_step(stack, recompute)
        for _ in range(steps + 1):
            began = time.process_time()
            step(views)
            seconds.append(time.process_time() - began)
    return Measured(seconds[1:], peak_memory() - before)


def care_step(stack: ExitStack, recompute: str) -> Callable[[list], None]:
    """Our step, as ``pretrain`` takes it."""
    import torch
    from care import streams_for
    from care.momentum import update_targets
    from care.train.losses import Losses

    c, t = streams_for("resnet50", size=SIZE)
    model = Losses(c, t, 100.0).to(memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    if recompute != "none":  # which another revision may not have
        from care.train.recompute import recomputing

        stack.enter_context(recomputing(c, t, recompute))
    stack.enter_context(model.computing("fp32", SIZE))

    def step(views: list[torch.Tensor]) -> None:
        model(views)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        update_targets(model.pairs, 0.99)

    return step


def ask(root: Path, recompute: str, batch: int, steps: int, *, keeps: bool) -> Measured:
    """Have a process take steps with the packages of a checkout."""
    environment = os.environ | {"PYTHONPATH": f"{root}:{ROOT}"}
    if not keeps:
        environment["MALLOC_MMAP_THRESHOLD_"] = OWN_MAPPING
    words = [recompute, str(batch), str(steps), "kept" if keeps else "returned"]
    answer = subprocess.run(
        [sys.executable, "-P", __file__, "--serve", *words],
        env=environment,
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Measured(*json.loads(answer.stdout))


def compare(ways: dict[str, tuple[Path, str]], batch: int, rounds: int, steps: int) -> list[dict]:
    """A row for each way: CPU seconds of a step, what it holds, and what the process takes."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    held = dict.fromkeys(ways, 0.0)
    process = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for way, (root, recompute) in ways.items():
            held[way] = max(held[way], ask(root, recompute, batch, 1, keeps=False).mib)
            of_process = ask(root, recompute, batch, steps, keeps=True)
            process[way] = max(process[way], of_process.mib)
            seconds[way] += of_process.cpu_seconds
    return [
        {
            "way": way,
            "batch": batch,
            "cpu_seconds": statistics.median(seconds[way]),
            "held_mib": held[way],
            "process_mib": process[way],
        }
        for way in ways
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--ways", nargs="+", default=["none", "some", "all"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed in each round")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        recompute, batch, steps, memory = options.serve
        print(json.dumps(be_peer(recompute, int(batch), int(steps), keeps=memory == "kept")))
        return
    ways = {which: (ROOT, which) for which in options.ways}
    if options.before:
        ways = {"before": (options.before, "none"), **ways}
    rows = []
    for batch in options.batch_sizes:
        of_batch = compare(ways, batch, options.rounds, options.steps)
        rows += of_batch
        print(f"\nResNet-50 at {SIZE} px, batch {batch}, {options.rounds} rounds")
        for row in of_batch:
            print(
                f"  {row['way']:8}{row['cpu_seconds']:7.2f} CPU seconds a step"
                f"{row['held_mib']:8.0f} MiB held{row['process_mib']:8.0f} MiB by the process"
            )
        sys.stdout.flush()
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
