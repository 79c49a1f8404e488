"""The encoder in a checkpoint: of a pre-training, of a fine-tuned classifier, or of a detector."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from torch import Tensor, nn
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.tapped import TappedEncoder
from care.train.checkpoint import Checkpoint
from care.train.foreign import recognise_resnet

# pixels, of what others trained
USUAL_SIZE = 224
# where models have the encoder: the sequential design, both streams, a classifier, a detector
PLACES = ("c.backbone.online.encoder.", "c.backbone.online.", "encoder.", "body.")
# of a detector in the C4 form, which moves the encoder's last stage there
C4_LAST_STAGE = "heads.box_head.0."
# what evaluations record of the encoder that they judge
DIGEST = re.compile("[0-9a-f]{64}")


class Stored(NamedTuple):
    """An encoder as it was found.

    Attributes:
        encoder: name of its architecture; "" of one that no table knows.
        size: side of the views that it was trained on, pixels.
        tensors: its state.
    """

    encoder: str
    size: int
    tensors: dict[str, Tensor]


def encoder_note(model: nn.Module) -> dict[str, Any] | None:
    """What a checkpoint's manifest has of the encoder in a model: its name and its size.

    Returns:
        The note, or None of a model without an encoder that has a name.
    """
    for module in model.modules():
        if isinstance(module, ResNetEncoder | TappedEncoder) and module.name:
            return {"name": module.name, "size": module.size}
    return None


def set_size(network: nn.Module, size: int) -> None:
    """Let the encoder in a network know on which size it is trained.

    Args:
        network: an encoder, or one that has it.
        size: side of the views, pixels.
    """
    for module in network.modules():
        if isinstance(module, ResNetEncoder | TappedEncoder):
            module.size = size


def stored_encoder(checkpoint: Checkpoint, source: str | Path) -> Stored:
    """The encoder in a checkpoint, of whatever training it is.

    Args:
        checkpoint: a verified one.
        source: where it is from, for messages.

    Raises:
        CareError: There is none in it, or none that can be built by its name.
    """
    settings = checkpoint.manifest["settings"]
    tensors = encoder_tensors(checkpoint.tensors("model"))
    if not tensors:
        raise CareError(
            f"{source} is a run without an encoder, such as one of linear classifiers on a frozen "
            "encoder; give the run that trained the encoder"
        )
    note = checkpoint.manifest.get("encoder")
    if note:
        return Stored(note["name"], int(note["size"]), tensors)
    # of earlier versions
    name = str(settings.get("encoder", ""))
    is_detector = "head" in settings
    size = USUAL_SIZE if is_detector else int(settings.get("size", USUAL_SIZE))
    if name and not DIGEST.fullmatch(name):
        return Stored(name, size, tensors)
    recognised = recognise_resnet(tensors, source)
    return Stored(recognised.encoder, size, recognised.tensors)


def encoder_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the encoder in that of a model, by the encoder's own names; perhaps empty."""
    for place in PLACES:
        tensors = _below(state, place)
        if tensors:
            last_stage = _below(state, C4_LAST_STAGE) if place == "body." else {}
            moved = {f"layer4.{name}": tensor for name, tensor in last_stage.items()}
            return tensors | moved
    return {}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def architecture(encoder: Encoder) -> str:
    """The name of an encoder without its tap, which decides nothing of the weights."""
    library, *rest = encoder.name.split(":")
    return f"{library}:{rest[0]}" if library in ("torchvision", "timm") else library
