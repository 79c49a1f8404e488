"""What of an evaluation takes hours on a CPU, in a line before it starts, with what takes less."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from flows.experiment import Experiment
from flows.protocols import QUICK


class Demand(NamedTuple):
    """What a training of a detector or a segmenter asks for where nothing else is said.

    Attributes:
        side: name of the setting that is a side of the images, pixels.
        pixels: its default.
        iterations: default of these.
    """

    side: str
    pixels: int
    iterations: int


# as the docstrings of the functions in ``care.evaluate`` say
DEMANDS = {"detect": Demand("size", 800, 24_000), "segment": Demand("crop", 513, 30_000)}
_BATCH_SIZE = 16
# px: of all images of a training; a small network has seen them after an hour or so
_LONG = 1e9
# px: of a batch; of these a ResNet-50 keeps gigabytes
_LARGE = 4e6
# settings of the quick protocol that decide no time
_BESIDE = ("checkpoint_every",)


def hours_on_cpu(verb: str, settings: Mapping[str, Any]) -> str | None:
    """Say that an evaluation is too much for a CPU, if it is.

    Args:
        verb: the evaluation.
        settings: its keywords.

    Returns:
        What it takes, in words, without what to do; None of what a CPU can do.
    """
    if verb not in DEMANDS:
        return None
    demand = DEMANDS[verb]
    pixels = settings.get(demand.side) or demand.pixels
    iterations = settings.get("iterations") or demand.iterations
    batch_size = settings.get("batch_size") or _BATCH_SIZE
    of_batch = batch_size * pixels**2
    costs = []
    if iterations * of_batch > _LONG:
        costs.append("hours")
    if of_batch > _LARGE:
        costs.append("gigabytes of memory")
    if not costs or not _is_on_cpu(settings.get("device")):
        return None
    length = "all its iterations"
    if settings.get("iterations"):
        length = "1 iteration" if iterations == 1 else f"{iterations:,} iterations"
    return (
        f"{verb} at {pixels} px, {length} of {batch_size} images, takes {' and '.join(costs)} on "
        "this CPU"
    )


def hours_of_pipeline(experiment: Experiment) -> list[str]:
    """Say what of a pipeline's evaluations is too much for a CPU, and what suits one.

    Args:
        experiment: that asks for them.

    Returns:
        A line for each.
    """
    wanted = experiment.judging.evaluate or tuple(DEMANDS)
    lines = []
    for pair, images in experiment.annotated_pairs.items():
        text = hours_on_cpu("detect", experiment.detector(pair))
        if text and images.train is not None and "detect" in wanted:
            settings = QUICK.evaluations["detect"]
            lines.append(
                f"{pair}: {text}; what suits one: --detection-head {settings['head']} "
                f"--detection-size {settings['size']} "
                f"--detection-iterations {settings['iterations']}"
            )
    text = hours_on_cpu("segment", experiment.segmenter)
    has_segments = experiment.detection.segment_train or experiment.has_scenes_masks
    if text and has_segments and "segment" in wanted:
        lines.append(f"{text}; what suits one: --protocol photos, or --evaluate without segment")
    return lines


def options_for_cpu(verb: str) -> str:
    """Options of ``care evaluate`` by which a CPU trains in minutes: those of the demo.

    Args:
        verb: the evaluation.
    """
    return " ".join(_options(QUICK.evaluations[verb]))


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as options of the command line."""
    for name, value in settings.items():
        if name not in _BESIDE:
            yield f"--{name.replace('_', '-')} {value}"


def _is_on_cpu(device: str | None) -> bool:
    """Whether an evaluation computes on the CPU."""
    # imports torch, which takes seconds: only where there is much to do
    from care.train.devices import torch_device

    return bool(torch_device(device).type == "cpu")
