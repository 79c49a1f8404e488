"""The encoder in a checkpoint: of a pre-training, of a fine-tuned classifier, or of a detector."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from torch import Tensor, nn
from care.colour_split import SPACES
from care.encoders import Encoder
from care.errors import CareError
from care.train.checkpoint import Checkpoint
from care.train.encoder_source import EncoderSource
from care.train.foreign import match_architecture, recognise
from care.vit import ViTEncoder
from shards.image_size import ImageSize, image_size

# pixels, of what others trained
USUAL_SIZE = 224
# where models have the encoder: the sequential design, both streams, a classifier, a detector
PLACES = ("c.backbone.online.encoder.", "c.backbone.online.", "encoder.", "body.")
# the same of the targets, which only pre-trainings have
TARGET_PLACES = ("c.backbone.target.encoder.", "c.backbone.target.")
PLACES_OF_ROLES = {"": PLACES, "online": PLACES, "target": TARGET_PLACES}
# of a detector in the C4 form, which moves the encoder's last stage there
C4_LAST_STAGE = "heads.box_head.0."
# what evaluations record of the encoder that they judge
DIGEST = re.compile("[0-9a-f]{64}")


class Stored(NamedTuple):
    """An encoder as it was found.

    Attributes:
        encoder: name of its architecture; "" of one that no table knows.
        size: of the views that it was trained on, pixels.
        tensors: its state.
        assumed: what is supposed of it that its weights do not tell.
    """

    encoder: str
    size: ImageSize
    tensors: dict[str, Tensor]
    assumed: str = ""


def encoder_note(model: nn.Module) -> dict[str, Any] | None:
    """What a checkpoint's manifest has of the encoder in a model: its name and its size.

    Returns:
        The note, or None of a model without an encoder that has a name.
    """
    for module in model.modules():
        if isinstance(module, Encoder) and module.name:
            return {"name": module.name, "size": module.size}
    return None


def set_size(network: nn.Module, size: ImageSize) -> None:
    """Let the encoders in a network know on which size they are trained.

    Args:
        network: an encoder, or one that has it, or online and target.
        size: of the views, pixels.
    """
    for module in network.modules():
        if isinstance(module, Encoder):
            module.size = size


def fit_positions(network: nn.Module, size: ImageSize) -> None:
    """Give vision transformers in a network, online and target, the positions of a size.

    Args:
        network: perhaps without one.
        size: of the views, pixels.
    """
    for module in network.modules():
        if isinstance(module, ViTEncoder):
            module.fit(size)


def share_positions(network: nn.Module, encoder: Encoder) -> None:
    """Give vision transformers in a network, online and target, the positions of one of them.

    Args:
        network: perhaps without one.
        encoder: whose positions they get; one of another kind has none.
    """
    if not isinstance(encoder, ViTEncoder):
        return
    for module in network.modules():
        if isinstance(module, ViTEncoder):
            module.grid.copy_(encoder.grid)


def stored_encoder(checkpoint: Checkpoint, source: EncoderSource) -> Stored:
    """The encoder in a checkpoint, of whatever training it is.

    Args:
        checkpoint: a verified one.
        source: where it is from; its branch is ``target`` for the network that follows the one that
            gradients trained.

    Raises:
        CareError: There is none in it, or none that can be built by its name.
    """
    if source.branch not in PLACES_OF_ROLES:
        raise CareError(
            f"wanted online or target as the encoder of {source.place}, got {source.branch!r}"
        )
    tensors = encoder_tensors(checkpoint.tensors("model"), PLACES_OF_ROLES[source.branch])
    if not tensors:
        raise CareError(
            f"{source.place} is a run without an encoder, such as one of linear classifiers on a "
            "frozen encoder; give the run that trained the encoder"
        )
    size = stored_size(checkpoint.manifest)
    note = checkpoint.manifest.get("encoder")
    if note:
        return Stored(note["name"], size, tensors)
    # of earlier versions
    name = str(checkpoint.manifest["settings"].get("encoder", ""))
    if name and not DIGEST.fullmatch(name):
        return Stored(name, size, tensors)
    # the one 3×3 stem of those versions has a stride of 2, and is the first of its shape
    named = match_architecture(tensors).encoder
    recognised = recognise(tensors, EncoderSource(source.place, "", named))
    return Stored(recognised.encoder, size, recognised.tensors)


def stored_size(manifest: Mapping[str, Any]) -> ImageSize:
    """The size that the encoder in a checkpoint was trained on, pixels.

    Args:
        manifest: of the checkpoint.
    """
    note = manifest.get("encoder")
    if note:
        return image_size(note["size"])
    # of earlier versions
    is_detector = "head" in manifest["settings"]
    return USUAL_SIZE if is_detector else image_size(manifest["settings"].get("size", USUAL_SIZE))


def encoder_tensors(
    state: Mapping[str, Tensor], places: Sequence[str] = PLACES
) -> dict[str, Tensor]:
    """The state of the encoder in that of a model, by the encoder's own names; perhaps empty."""
    for place in places:
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
    has_prefix = library in ("torchvision", "timm", *SPACES)
    return f"{library}:{rest[0]}" if has_prefix else library
