"""What the benchmarks share: rounds in which every peer runs once, medians, ratios."""

import ctypes
import os
import statistics
import time
from collections.abc import Callable
from rich.console import Console
from rich.table import Table


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, all measured in turn in one process."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            os.sync()  # what one peer left to be written does not slow the next one
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, times: dict[str, float], *, count: int, unit: str, reference: str) -> None:
    """Milliseconds and rate a unit, and the speed as a multiple of the reference's."""
    table = Table(
        "",
        f"ms / {unit}",
        f"{unit} / s",
        f"speed beside {reference}",
        title=title,
        title_justify="left",
    )
    for name, seconds in times.items():
        table.add_row(
            name,
            f"{seconds / count * 1e3:.3f}",
            f"{count / seconds:,.0f}",
            f"{times[reference] / seconds:.2f}×",
        )
    Console(width=140).print(table)


def keep_memory() -> None:
    """Let glibc keep freed memory, as ``pretrain`` does on a CPU."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0)  # M_MMAP_MAX
    libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD
