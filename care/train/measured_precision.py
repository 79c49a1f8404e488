"""Which precision is faster for each stream, measured on this machine.

bfloat16 is fast where a CPU multiplies it natively, but not in every network: on maps of tens of
pixels, converting costs more than multiplying saves. So each stream is timed, and the finding is
kept on this machine: the same command takes the same precision again.
"""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
import torch
from torch import Tensor, nn
from care.encoded import bands_of
from care.streams import CStream, Maps, TStream
from care.train import ranks
from care.train.batches import noise_views
from care.train.mirror import recorded_settings
from care.train.precision import Precision, StreamPrecisions, can_compute, fastest_precision
from care.train.views import VIEWS, View
from shards import Cache, ShardError, storage
from shards.image_size import ImageSize

# times as fast bfloat16 must be: it costs digits
GAIN = 1.1
# that are timed; more take longer and tell no more
MOST_IMAGES = 32
# of which the fastest counts, after one more that allocates
ROUNDS = 3


def continued_precisions(
    run: str | Path,
    c: CStream,
    t: TStream | None,
    precision: Precision | None,
    views: Sequence[View],
    size: ImageSize,
    *,
    images: int,
) -> StreamPrecisions:
    """Each stream's precision: as asked for, else as the run began, else the faster one here.

    Args:
        run: run directory or URL, perhaps of a run that another machine began.
        c: the C-stream, on its device.
        t: the T-stream, or None.
        precision: of both streams, by the user.
        views: their distributions.
        size: of those that have none of their own, pixels.
        images: that all processes compute at a time.
    """
    if precision:
        return StreamPrecisions(precision, precision)
    ranks.limit_threads()
    device = next(c.parameters()).device
    recorded = recorded_settings(run)
    if recorded is not None:
        c_precision = recorded["precision"]
        # version 0.1 recorded one for both
        of_run = StreamPrecisions(c_precision, recorded.get("t_precision", c_precision))
        if all(can_compute(device, of_stream) for of_stream in of_run):
            return of_run
    per_process = images // ranks.world()
    measured = measured_precisions(c, t, size=size, batch_size=per_process, views=views)
    # every process measures; only what all find faster is reduced
    in_float32 = ranks.max_over_ranks(*(float(of_stream == "fp32") for of_stream in measured))
    of_c, of_t = in_float32
    return StreamPrecisions("fp32" if of_c else measured.c, "fp32" if of_t else measured.t)


def measured_precisions(
    c: CStream,
    t: TStream | None,
    *,
    size: ImageSize,
    batch_size: int,
    views: Sequence[View] = VIEWS,
) -> StreamPrecisions:
    """The faster of bfloat16 and float32 for each stream, where a CPU has native bfloat16.

    Every other device, and a CPU without it, has one answer for both streams.

    Args:
        c: the C-stream, in its final memory layout; neither its statistics nor torch's global
            generator are changed.
        t: the T-stream, or None.
        size: of the views, pixels.
        batch_size: images a step in this process.
        views: their distributions, of which sizes and number count.

    Returns:
        The precisions; those of an earlier call for the same networks on this kind of machine.
    """
    device = next(c.parameters()).device
    native = fastest_precision(device)
    if device.type != "cpu" or native == "fp32":
        return StreamPrecisions(native, native)
    images = min(batch_size, MOST_IMAGES)
    sizes = [view.seen_size(size) for view in views]
    record = _record(c, t, sizes, images)
    try:
        recorded = storage.read_json(record)
        return StreamPrecisions(recorded["c"], recorded["t"])
    except (ShardError, OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or damaged
    with torch.random.fork_rng(devices=[]):
        dtype = next(c.parameters()).dtype
        bands = bands_of(c.backbone.online)
        noise = noise_views(views, images, size, bands=bands, dtype=dtype)
        measured = _measure(c, t, noise)
    with suppress(ShardError, OSError):  # a home that is read-only costs measuring again
        record.parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(record, measured._asdict())
    return measured


def _measure(c: CStream, t: TStream | None, views: Sequence[Tensor]) -> StreamPrecisions:
    """Time copies of the streams on random views."""
    c_copy = copy.deepcopy(c)
    samples = torch.arange(len(views[0]))
    of_batch = {"samples": samples} if c.criterion.uses_samples else {}
    c_precision = _faster(c_copy, lambda: _scalar(c_copy(*views, **of_batch).online))
    if t is None:
        return StreamPrecisions(c_precision, c_precision)
    t_copy = copy.deepcopy(t)
    with torch.no_grad():
        maps = c_copy(*views, **of_batch).maps
    online = tuple(feature_map.requires_grad_() for feature_map in maps.online)
    trained_maps = Maps(online, maps.target)
    t_precision = _faster(t_copy, lambda: _scalar(t_copy(trained_maps).online))
    return StreamPrecisions(c_precision, t_precision)


def _scalar(embeddings: tuple[Tensor, ...]) -> Tensor:
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


def _record(c: CStream, t: TStream | None, sizes: list[ImageSize], images: int) -> Path:
    """Where the finding for networks of these shapes on this kind of machine is kept."""
    machine = [torch.__version__, torch.cpu.get_capabilities(), torch.get_num_threads()]
    shapes: list[tuple[str, list[int]]] = []
    for stream in (c, t):
        if stream is not None:
            shapes += [(name, list(p.shape)) for name, p in stream.named_parameters()]
    is_pair = len(sizes) == 2 and sizes[0] == sizes[1]
    digest = storage.digest([machine, shapes, sizes[0] if is_pair else sizes, images])
    return Cache().folder.parent / "precision" / f"{digest}.json"
