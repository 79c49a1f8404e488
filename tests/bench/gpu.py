"""ResNet-50 at 224 px on one GPU: steps, peak memory, FLOP utilisation and loader (nox -s gpu).

CARE and its C-stream alone run beside the released recipe under autocast and lightly's BYOL,
each eager and through torch.compile, on the same views in one process: a round measures every peer,
rounds go on until the time is used up, and medians count. A peer that fails shows its error.

Utilisation is the model's operations, counted by torch on meta tensors, over the device's dense
bfloat16 peak by its data sheet where that is known, and over that of a large product measured here.
Without a GPU, or with --dry-run, the script runs through on a small network, for no figures.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import ResNet
from torchvision.models import resnet18 as torchvision_resnet18
from torchvision.models import resnet50 as torchvision_resnet50
import shards
from care import AbsolutePosition, CStream, RelativePosition, TStream, care_loss, resnet18, resnet50
from care.encoders import ResNetEncoder
from care.train import batches
from tests.bench.train import Plain, lightly_byol_step, ours, plain_step, step_of
from tests.bench.views import photograph

BUDGET = 240.0  # seconds for everything
COMPILING = 0.5  # share of the budget after which no peer begins to compile
STEPPING = 0.85  # share after which no round begins: one takes seconds
LOADING = 5.0  # seconds that a loader is measured
ROUNDS = 15
PEAKS = {"H200": 989e12, "H100 80GB HBM3": 989e12}  # FLOP/s, dense bfloat16, of the SXM boards

Step = Callable[[], None]
Prepare = Callable[[nn.Module], None]
Row = dict[str, float | str | None]


@dataclass(frozen=True)
class Workload:
    """What every peer trains, and on what."""

    device: torch.device
    size: int  # px, side of the views
    batch_size: int
    steps: int  # measured in a round
    network: Callable[[], ResNetEncoder]
    plain_network: Callable[[], ResNet]
    precision: torch.dtype
    compiler: str  # torch.compile's backend
    photographs: int  # in the loader's shard set
    workers: tuple[int, ...]  # each number of loader processes

    @property
    def side(self) -> int:
        """Pixels of the map's side at layer3."""
        return self.size // 16


@dataclass
class Peer:
    """A model's training step, and what was measured of it."""

    name: str
    build: Callable[[Prepare], Step]
    image_flops: float  # of the model, forwards and backwards
    compiled: bool
    step: Step | None = None
    seconds: list[float] = field(default_factory=list)  # a step, one value a round
    memory: int = 0  # bytes: its own tensors and what a step adds to them at its peak
    compile_seconds: float | None = None
    error: str = ""


def full_size(options: argparse.Namespace, device: torch.device) -> Workload:
    """ResNet-50; 128 images are a GPU's part of the paper's 1,024 on eight."""
    return Workload(
        device=device,
        size=options.size or 224,
        batch_size=options.batch_size or 128,
        steps=options.steps or 5,
        network=resnet50,
        plain_network=torchvision_resnet50,
        precision=torch.bfloat16,
        compiler="inductor",
        photographs=512,
        workers=(0, 4, 8, 16),
    )


def tiny(options: argparse.Namespace, device: torch.device) -> Workload:
    """Small enough for a CPU, which may emulate bfloat16; no C++ compiler is needed."""
    return Workload(
        device=device,
        size=options.size or 64,
        batch_size=options.batch_size or 4,
        steps=options.steps or 1,
        network=resnet18,
        plain_network=torchvision_resnet18,
        precision=torch.bfloat16 if device.type == "cuda" else torch.float32,
        compiler="eager",
        photographs=16,
        workers=(0, 2),
    )


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of one call, between events of a GPU or by the clock of a CPU."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - began) / repeats
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def product_peak(device: torch.device) -> float:
    """FLOP/s of a large square product in bfloat16, the best of five tries."""
    side = 8192 if device.type == "cuda" else 128
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    measured(lambda: a @ b, device, 3)  # warm-up
    seconds = min(measured(lambda: a @ b, device, 10) for _ in range(5))
    return 2 * side**3 / seconds


def specified_peak(device: torch.device) -> float | None:
    """The data sheet's dense bfloat16 FLOP/s, or None for a device that is not in ``PEAKS``."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for board, peak in PEAKS.items() if board in name), None)


def image_flops(work: Workload, position: type, transformer: bool) -> float:
    """Operations of a training step for an image, both views, counted without computing any."""
    with torch.device("meta"):
        c, t = ours(position, work.network, work.side)
        views = torch.empty(2, 2, 3, work.size, work.size)
    with FlopCounterMode(display=False) as counter:
        out = c(*views)
        care_loss(out, t(out.maps) if transformer else None).total.backward()
    return counter.get_total_flops() / 2


def networks(stream: CStream | TStream) -> list[nn.Module]:
    """The modules that are compiled, each by itself: both views run through the same code."""
    pairs = (stream.backbone, stream.projector)
    trained = [pair.online for pair in pairs]
    targets = [pair.target for pair in pairs]  # type: ignore[attr-defined]
    return [*trained, *targets, stream.predictor]


def care_step(
    work: Workload,
    views: tuple[Tensor, Tensor],
    transformer: bool,
    prepare: Prepare,
) -> Step:
    """CARE with relative positions, as ``streams_for`` makes it, or its C-stream alone."""
    c, t = ours(RelativePosition, work.network, work.side)
    streams = [c, t] if transformer else [c]
    for stream in streams:
        stream.to(work.device)
        for module in networks(stream):
            prepare(module)
    return step_of(c, t if transformer else None, work.precision, views)


def released_step(work: Workload, views: tuple[Tensor, Tensor], prepare: Prepare) -> Step:
    """The released recipe under autocast, contiguous as it is."""
    model = Plain(work.plain_network, work.side).to(work.device)
    online, target = [model.encoder, model.transformer], [*model.target][:2]
    for module in (*online, *target, *model.projectors, *model.predictors, *model.target[2]):
        prepare(module)
    return plain_step(model, work.precision, torch.contiguous_format, views)


def byol_step(work: Workload, views: tuple[Tensor, Tensor], prepare: Prepare) -> Step:
    """lightly's BYOL with channels_last."""
    return lightly_byol_step(work.precision, views, work.device.type, work.plain_network, prepare)


def peers_of(work: Workload) -> list[Peer]:
    """Every model eager, then every model compiled, the most interesting first."""
    shape = (work.batch_size, 3, work.size, work.size)
    views = torch.randn(shape, device=work.device), torch.randn(shape, device=work.device)
    c_stream = image_flops(work, RelativePosition, transformer=False)
    models = {
        "care": (
            partial(care_step, work, views, True),
            image_flops(work, RelativePosition, transformer=True),
        ),
        "care, C-stream alone": (partial(care_step, work, views, False), c_stream),
        "lightly's BYOL": (partial(byol_step, work, views), c_stream),  # the same networks
        "released recipe, autocast": (
            partial(released_step, work, views),
            image_flops(work, AbsolutePosition, transformer=True),
        ),
    }
    return [
        Peer(name + ", compiled" * compiled, build, flops, compiled)
        for compiled in (False, True)
        for name, (build, flops) in models.items()
    ]


def start(peer: Peer, work: Workload) -> None:
    """Build a peer and take its first steps; what goes wrong becomes its ``error``."""
    cuda = work.device.type == "cuda"
    prepare = partial(nn.Module.compile, backend=work.compiler) if peer.compiled else lambda _: None
    before = torch.cuda.memory_allocated(work.device) if cuda else 0
    try:
        peer.step = peer.build(prepare)
        synchronize(work.device)
        began = time.perf_counter()
        peer.step()
        synchronize(work.device)
        if peer.compiled:
            peer.compile_seconds = time.perf_counter() - began
        peer.step()  # the first with momentum, of which SGD makes the buffers late
        if cuda:
            resident = torch.cuda.memory_allocated(work.device) - before
            torch.cuda.reset_peak_memory_stats(work.device)
            peer.step()
            synchronize(work.device)
            peak = torch.cuda.max_memory_allocated(work.device)
            peer.memory = resident + peak - torch.cuda.memory_allocated(work.device)
    except Exception as error:  # whatever a compiler or another package raises
        fail(peer, error)


def fail(peer: Peer, error: Exception) -> None:
    """Note why a peer has no figures, and give back its memory."""
    lines = str(error).strip().splitlines() or [""]
    peer.step, peer.error = None, f"{type(error).__name__}: {lines[0]:.160}"
    error.__traceback__ = None  # it holds the tensors of the step
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure(peers: list[Peer], work: Workload, rounds: int, deadline: float) -> None:
    """Rounds of every peer, at least one, until there were ``rounds`` or the deadline is past."""
    for number in range(rounds):
        if number and time.monotonic() > deadline:
            break
        for peer in peers:
            if peer.step is None:
                continue
            try:
                peer.step()  # the last peer's memory, and its clock, become this one's
                peer.seconds.append(measured(peer.step, work.device, work.steps))
            except Exception as error:
                fail(peer, error)


def peer_row(peer: Peer, work: Workload, specified: float | None, product: float) -> Row:
    """A peer's figures for the table and the file."""
    if not peer.seconds:
        return {"name": peer.name, "error": peer.error or "not measured"}
    seconds = statistics.median(peer.seconds)
    rate = work.batch_size / seconds
    return {
        "name": peer.name,
        "step_seconds": seconds,
        "fastest_step_seconds": min(peer.seconds),
        "slowest_step_seconds": max(peer.seconds),
        "rounds": len(peer.seconds),
        "images_per_second": rate,
        "image_flops": peer.image_flops,
        "utilisation": rate * peer.image_flops / specified if specified else None,
        "utilisation_of_product": rate * peer.image_flops / product,
        "peak_memory_bytes": peer.memory or None,
        "compile_seconds": peer.compile_seconds,
        "error": peer.error,
    }


def loader_rate(data: shards.ShardSet, work: Workload, workers: int, seconds: float) -> float:
    """Images a second of two coloured views that reach the device, without a network."""
    stream = batches(
        data,
        size=work.size,
        batch_size=work.batch_size,
        steps=1_000_000,
        workers=workers,
        device=work.device,
    )
    for _ in range(2 * workers + 1):  # what workers had prepared ahead when the first one arrived
        next(stream)
    synchronize(work.device)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(stream)
        images += work.batch_size
    synchronize(work.device)
    rate = images / (time.perf_counter() - began)
    stream.close()  # type: ignore[attr-defined]
    return rate


def loader_rows(work: Workload, seconds: float) -> Iterator[Row]:
    """The loader's rate for each number of workers, on photographs of about 500 × 375 px."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photographs")
        source.mkdir()
        for number in range(work.photographs):
            (source / f"{number:04}.jpg").write_bytes(photograph(number))
        shards.build(source, Path(folder, "set"), shard_size=128)
        data = shards.open(Path(folder, "set"))
        for workers in work.workers:
            try:
                rate = loader_rate(data, work, workers, seconds)
                yield {"workers": workers, "images_per_second": rate, "error": ""}
            except Exception as error:  # such as shared memory that is too small for a batch
                yield {"workers": workers, "error": f"{type(error).__name__}: {error}"}


def show_loader(rows: list[Row], console: Console) -> None:
    """Print the loader's table."""
    table = Table("workers", "images / s", title="loader, two views", title_justify="left")
    for row in rows:
        table.add_row(str(row["workers"]), row["error"] or f"{row['images_per_second']:,.0f}")
    console.print(table)


def show_steps(rows: list[Row], work: Workload, console: Console) -> None:
    """Print the table of training steps."""
    title = f"{work.network.keywords['name']}, {work.size} px, {work.batch_size} images a step"
    precision = str(work.precision).removeprefix("torch.")
    columns = ("", "images / s", "ms / step", "MFU", "of a product's", "peak GB", "compile s")
    table = Table(*columns, title=f"{title}, {precision}, {work.device}", title_justify="left")
    for row in rows:
        if "images_per_second" not in row:
            table.add_row(row["name"], row["error"])
            continue
        formats = {
            "images_per_second": "{:,.0f}",
            "step_milliseconds": "{:.1f}",
            "utilisation": "{:.1%}",
            "utilisation_of_product": "{:.1%}",
            "peak_memory_gigabytes": "{:.1f}",
            "compile_seconds": "{:.0f}",
        }
        memory = row["peak_memory_bytes"]
        scaled = row | {
            "step_milliseconds": row["step_seconds"] * 1e3,
            "peak_memory_gigabytes": memory and memory / 1e9,
        }
        cells = [form.format(scaled[key]) if scaled[key] else "–" for key, form in formats.items()]
        table.add_row(row["name"], *cells)
        if row["error"]:
            table.add_row("", row["error"])
    console.print(table)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--batch-size", type=int, help="images a step; 128")
    parser.add_argument("--size", type=int, help="side of the views, px, a multiple of 32; 224")
    parser.add_argument("--steps", type=int, help="steps measured in a round; 5")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is one")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything; 240")
    parser.add_argument("--dry-run", action="store_true", help="a small network, for no figures")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def main() -> None:
    """Measure, print two tables, and write the file after every part of it."""
    began, options, console = time.monotonic(), parsed(), Console(width=140)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dry = options.dry_run or (device.type == "cpu" and options.device is None)
    if dry and not options.dry_run:
        console.print("torch sees no CUDA device: a dry run, whose figures mean nothing")
    work = (tiny if dry else full_size)(options, device)
    torch.manual_seed(0)
    product, specified = product_peak(device), specified_peak(device)
    sheet = f"{specified / 1e12:.0f} by its data sheet" if specified else "data sheet not known"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(f"{name}: {product / 1e12:.1f} TFLOP/s in a bf16 product, {sheet}")
    record = {
        "device": name,
        "torch": torch.__version__,
        "dry_run": dry,
        "size": work.size,
        "batch_size": work.batch_size,
        "precision": str(work.precision),
        "product_flops": product,
        "specified_flops": specified,
    }

    def write(**parts: object) -> None:
        record.update(parts, seconds=time.monotonic() - began)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1))

    loader = list(loader_rows(work, 0.1 if dry else LOADING))
    show_loader(loader, console)
    write(loader=loader)

    peers = peers_of(work)
    for peer in (peer for peer in peers if not peer.compiled):
        start(peer, work)
    measure(peers, work, 2, began + STEPPING * options.budget)
    write(steps=[peer_row(peer, work, specified, product) for peer in peers])
    for peer in (peer for peer in peers if peer.compiled):
        if time.monotonic() - began > COMPILING * options.budget:
            peer.error = f"not compiled: {COMPILING:.0%} of {options.budget:.0f} s were used up"
            continue
        start(peer, work)
    measure(peers, work, 2 if dry else ROUNDS, began + STEPPING * options.budget)
    rows = [peer_row(peer, work, specified, product) for peer in peers]
    show_steps(rows, work, console)
    write(steps=rows)
    console.print(f"{record['seconds']:.0f} s of {options.budget:.0f}")


if __name__ == "__main__":
    main()
