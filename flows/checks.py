"""What a pipeline is refused for before anything of it starts: encoders, weights, libraries."""

from flows.experiment import Experiment
from flows.recipes import BYOL, PLAIN_OPTIMIZER
from shards.errors import Misuse
from shards.pixels import FOUR_BANDS, channels_of

_ANNOTATIONS = {"voc": "--voc-train and --voc-val", "coco": "--coco-train and --coco-val"}


def check_encoders(experiment: Experiment) -> None:
    """Refuse encoders and weights that were asked for and cannot be had, before anything is done.

    Args:
        experiment: that asks for them.

    Raises:
        CareError: One cannot, takes images of other bands, or an optimizer's library is not
            installed.
        Misuse: An encoder and a method, or an encoder and a detector, do not go together.
    """
    training = experiment.training
    baselines = experiment.judging.baselines or []
    bands = _bands(experiment)
    is_plain = training.objectives == (BYOL,) and training.optimizer in (None, PLAIN_OPTIMIZER)
    if is_plain and bands != FOUR_BANDS and not (training.encoder or training.init or baselines):
        return
    # imports torch, which takes seconds: only where somebody has named something
    from care.encoded import bands_of, refuse_bands
    from care.train.checks import check_encoder, check_method, check_optimizer, judged_network

    protocol = experiment.protocol
    for objective in training.objectives:
        check_method(protocol.encoder, objective, t_stream=training.t_stream)
        check_optimizer(objective, training.optimizer)
    networks = [check_encoder(protocol.encoder, size=protocol.size, init=training.init)]
    networks += [judged_network(source) for source in baselines]
    names = [protocol.encoder, *baselines]
    for network in networks:
        if bands is not None:
            refuse_bands(bands, network)
        if bands_of(network) == FOUR_BANDS and experiment.annotated_pairs:
            raise Misuse(
                f"{protocol.encoder} has four bands, and detectors see red, green and blue; leave"
                " the annotated images out"
            )
    # which imports detectors, too
    from care.evaluate.detector_forms import takes_c4

    refused = [name for name, network in zip(names, networks, strict=True) if not takes_c4(network)]
    if refused:
        _check_detectors(experiment, refused[0])


def _bands(experiment: Experiment) -> int | None:
    """The bands of the images, None where nothing says it but what they are built of."""
    if experiment.of_scenes:
        return 3
    return channels_of(experiment.images.bands) if experiment.images.bands else None


def _check_detectors(experiment: Experiment, encoder: str) -> None:
    """Refuse detectors of the C4 form, which an encoder does not take."""
    for pair, images in experiment.annotated_pairs.items():
        if images.train is not None and experiment.detector(pair).get("head") == "c4":
            raise Misuse(
                f"{encoder} has no stages to cut into C4 detectors, those of protocol paper for"
                " Pascal VOC; give --detection-head fpn for it, or leave"
                f" {_ANNOTATIONS[pair]} out"
            )
