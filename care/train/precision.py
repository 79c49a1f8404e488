"""The precision of the networks' arithmetic: named, entered, or chosen by measurement.

bfloat16 is fast where a CPU multiplies it natively, but not in every network: on maps of tens of
pixels, converting costs more than multiplying saves. So each stream is timed, and the finding is
kept on this machine: the same command takes the same precision again.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple
import numpy as np
import torch
from torch import Tensor, nn
from care.streams import CStream, Maps, TStream
from care.train import ranks
from care.train.mirror import recorded_settings
from shards import Cache, ShardError, storage

Precision = Literal["bf16", "fp16", "fp32"]
# times as fast bfloat16 must be: it costs digits
GAIN = 1.1
# that are timed; more take longer and tell no more
MOST_IMAGES = 32
# of which the fastest counts, after one more that allocates
ROUNDS = 3


class StreamPrecisions(NamedTuple):
    """Precision of each stream's arithmetic.

    Attributes:
        c: of the C-stream.
        t: of the T-stream.
    """

    c: Precision
    t: Precision


def fastest_precision(device: torch.device) -> Precision:
    """What the hardware computes natively, for large networks.

    Args:
        device: where the network computes.

    Returns:
        bfloat16 where the hardware has it (emulated it is slower than float32), else float16 on
        CUDA and float32 on a CPU.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") else "fp32"


def can_compute(device: torch.device, precision: Precision) -> bool:
    """Whether a training in a precision may go on here.

    Args:
        device: where the network computes.
        precision: of a run that another machine began.

    Returns:
        False for float16 on a CPU, which takes minutes for a step where it is emulated; the
        emulation of bfloat16 is only slower than float32.
    """
    if precision == "fp16" and device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_fp16"))
    return True


def continued_precision(
    run: str | Path,
    precision: Precision | None,
    device: torch.device,
) -> Precision:
    """The precision of a training that has one: as asked for, as the run began, or the native one.

    Args:
        run: run directory or URL, perhaps of a run that another machine began.
        precision: by the user.
        device: where the network computes.
    """
    if precision:
        return precision
    recorded = recorded_settings(run)
    if recorded is not None and can_compute(device, recorded["precision"]):
        of_run: Precision = recorded["precision"]
        return of_run
    return fastest_precision(device)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which networks on a device compute in a precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


@contextmanager
def stream_precision(
    device: torch.device,
    precision: Precision | None,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Compute in a precision of one's own, whatever the surrounding autocast's is.

    Args:
        device: where the network computes.
        precision: "fp32" leaves a surrounding autocast, anything else begins one where there is
            none; None stays as it is.

    Yields:
        What to apply to a tensor that comes from outside: it is of the other precision.
    """
    surrounded = torch.is_autocast_enabled(device.type)
    if precision == "fp32" and surrounded:
        with torch.autocast(device.type, enabled=False):
            yield lambda tensor: tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    elif precision in ("bf16", "fp16") and not surrounded:
        with autocast(device, precision):
            yield lambda tensor: tensor
    else:
        yield lambda tensor: tensor


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a step, and put them back after the block.

    Dropout, stochastic depth and torchvision's samplers draw from them: so what they draw is a
    pure function of (seed, step, process).

    Args:
        seed: of the training.
        step: its number.
        device: where the network computes.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        numbers = np.random.default_rng((seed, step, ranks.rank()))
        torch.manual_seed(int(numbers.integers(2**63)))
        yield


def measured_precisions(
    c: CStream,
    t: TStream | None,
    *,
    size: int,
    batch_size: int,
) -> StreamPrecisions:
    """The faster of bfloat16 and float32 for each stream, where a CPU has native bfloat16.

    Every other device, and a CPU without it, has one answer for both streams.

    Args:
        c: the C-stream, in its final memory layout; neither its statistics nor torch's global
            generator are changed.
        t: the T-stream, or None.
        size: side of the views, pixels.
        batch_size: images a step in this process.

    Returns:
        The precisions; those of an earlier call for the same networks on this kind of machine.
    """
    device = next(c.parameters()).device
    native = fastest_precision(device)
    if device.type != "cpu" or native == "fp32":
        return StreamPrecisions(native, native)
    images = min(batch_size, MOST_IMAGES)
    record = _record(c, t, size, images)
    try:
        recorded = storage.read_json(record)
        return StreamPrecisions(recorded["c"], recorded["t"])
    except (ShardError, OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or damaged
    with torch.random.fork_rng(devices=[]):
        measured = _measure(c, t, size, images)
    with suppress(ShardError, OSError):  # a home that is read-only costs measuring again
        record.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(record, measured._asdict())
    return measured


def _measure(c: CStream, t: TStream | None, size: int, images: int) -> StreamPrecisions:
    """Time copies of the streams on random views."""
    c_copy = copy.deepcopy(c)
    dtype = next(c.parameters()).dtype
    views = torch.randn(2, images, 3, size, size, dtype=dtype)
    x1, x2 = (view.contiguous(memory_format=torch.channels_last) for view in views)
    c_precision = _faster(c_copy, lambda: _scalar(c_copy(x1, x2).online))
    if t is None:
        return StreamPrecisions(c_precision, c_precision)
    t_copy = copy.deepcopy(t)
    with torch.no_grad():
        maps = c_copy(x1, x2).maps
    online1, online2 = (feature_map.requires_grad_() for feature_map in maps.online)
    trained_maps = Maps((online1, online2), maps.target)
    t_precision = _faster(t_copy, lambda: _scalar(t_copy(trained_maps).online))
    return StreamPrecisions(c_precision, t_precision)


def _scalar(embeddings: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack([embedding.float().square().mean() for embedding in embeddings]).sum()


def _faster(network: nn.Module, forward: Callable[[], Tensor]) -> Precision:
    """The precision in which forward and backward passes of a network take less time."""
    seconds = {precision: [float("inf")] for precision in ("fp32", "bf16")}
    for round_number in range(ROUNDS + 1):
        for precision, of_precision in seconds.items():
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                output = forward()
            torch.autograd.backward(output)
            network.zero_grad()
            if round_number > 0:
                of_precision.append(time.perf_counter() - began)
    return "bf16" if min(seconds["bf16"]) * GAIN < min(seconds["fp32"]) else "fp32"


def _record(c: CStream, t: TStream | None, size: int, images: int) -> Path:
    """Where the finding for networks of these shapes on this kind of machine is kept."""
    machine = [torch.__version__, torch.cpu.get_capabilities(), torch.get_num_threads()]
    shapes: list[tuple[str, list[int]]] = []
    for stream in (c, t):
        if stream is not None:
            shapes += [(name, list(p.shape)) for name, p in stream.named_parameters()]
    digest = storage.digest([machine, shapes, size, images])
    return Cache().folder.parent / "precision" / f"{digest}.json"
