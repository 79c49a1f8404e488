"""Write the tables of size and memory in docs/performance.md anew: ``python -m tests.size_page``.

They stand between comments, and come from the JSON that ``tests.bench.size`` and
``tests.bench.memory`` left in docs/results/reliability. All else on the page is written by hand.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "docs" / "results" / "reliability"
_WAYS = {
    "before": "the build before",
    "none": "`--recompute none`",
    "some": "`--recompute some`",
    "all": "`--recompute all`",
}


def with_tables(page: str) -> str:
    """The page with the tables of the figures that are kept."""
    for name, table in (("memory", memory_table), ("size", size_table)):
        figures = json.loads((FIGURES / f"{name}.json").read_text())
        block = f"<!-- {name} -->\n\n{table(figures)}\n\n<!-- end of {name} -->"
        pattern = rf"(?s)<!-- {name} -->\n.*?<!-- end of {name} -->"
        page = re.sub(pattern, lambda _, block=block: block, page)
    return page


def memory_table(rows: Sequence[dict[str, Any]]) -> str:
    """What a step holds and takes, beside the first way of each batch size."""
    lines = ["| batch | | held, MiB | the process, MiB | CPU s a step |", "|---|---|---|---|---|"]
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        reference = first.setdefault(row["batch"], row)
        cells = [str(row["batch"]), _WAYS[row["way"]]]
        for name, digits in (("held_mib", 0), ("process_mib", 0), ("cpu_seconds", 1)):
            ratio = "" if row is reference else f" ({row[name] / reference[name]:.2f})"
            cells.append(f"{row[name]:.{digits}f}{ratio}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def size_table(figures: dict[str, Any]) -> str:
    """What costs how much, a line each."""
    opening = figures["opening"]
    count, shard_count = figures["samples"], figures["shards"]
    pages = -(-(shard_count + 3) // figures["listed"])
    rows = [
        (
            f"opening {count:,} samples in {shard_count:,} shards",
            f"{opening['open_s']:.1f} s, and {opening['listing_s']:.1f} s for a listing of its"
            f" folder before; both are {opening['open_cpu_s']:.1f} s of CPU",
        ),
        (
            "memory of the process, at most",
            f"{opening['most_gib']:.2f} GiB, {opening['own_gib']:.2f} of its own; the rest are"
            f" pages of {figures['side_files_gb']:.1f} GB of files",
        ),
        ("a first batch of 256 samples after it", f"{opening['first_batch_s']:.2f} s"),
    ]
    for order in figures["order"]:
        text = (
            f"{order['mean_ms']:.2f} ms in a row, {order['anew_ms']:.1f} ms from a new place,"
            f" {order['peak_mib']:.1f} MiB"
        )
        rows.append((f"the samples of a step of 4,096 out of {order['samples']:,}", text))
    rows += [
        ("opening it in a bucket", _requests(figures, "opening", shard_count, pages)),
        (
            "an epoch of it, each shard fetched once",
            _requests(figures, "epoch", shard_count, pages),
        ),
        ("building it into a bucket", _requests(figures, "build", shard_count, pages)),
        (
            "memory of a build",
            f"{figures['build']['plan_bytes']:.0f} bytes an image of its plan,"
            f" {figures['build']['entry_bytes']:.0f} of the index to come:"
            f" {count * sum(figures['build'].values()) / 1e9:.0f} GB",
        ),
        (
            f"features of {figures['features']:,} float32",
            f"{count * figures['features'] * 4 / 1e9:.0f} GB",
        ),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
    return "\n".join(lines)


def _requests(figures: dict[str, Any], act: str, shard_count: int, pages: int) -> str:
    """What is asked of a store, of all shards together."""
    fixed, of_shard = figures["requests"][act], figures["requests"][f"{act}_a_shard"]
    counts = []
    for name in ("LIST", "GET", "PUT", "DELETE"):
        count = round(fixed[name] + shard_count * of_shard[name])
        if name == "LIST":
            count *= pages
        if count:
            counts.append(f"{count:,} {name}")
    return ", ".join(counts)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
