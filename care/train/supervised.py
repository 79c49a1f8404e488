"""Encoders that were trained with ImageNet's labels, from torchvision or timm."""

from typing import Any
import torch
from torch import nn
from torchvision import models
from care.colour_split import SPACES
from care.encoders import GRAY, RGBN, Encoder, build_encoder
from care.errors import CareError
from care.tapped import TappedEncoder
from care.train.encoder_source import LIBRARIES
from care.train.photometrics import MEAN, STD
from care.train.weights import load_exactly

# torchvision's names of our encoders, where they differ
TORCHVISION_NAMES = {"resnet50x2": "wide_resnet50_2"}
WANTED = "a name that torchvision or timm has some for, and a network or a cache to get them from"


def supervised_encoder(name: str) -> Encoder:
    """Build an encoder with the weights that ImageNet's labels gave it.

    Args:
        name: as for ``build_encoder``.

    Raises:
        CareError: There are no such weights, they cannot be fetched, or they are for pixels that
            are normalised in another way.
    """
    encoder = supervised_network(name)  # its errors come first
    kind, _, rest = name.partition(":")
    model = rest.partition(":")[0]
    if kind not in LIBRARIES:
        model = TORCHVISION_NAMES.get(kind, kind)
    trained = _timm_model(model, name) if kind == "timm" else _torchvision_model(model, name)
    if isinstance(encoder, TappedEncoder):
        return TappedEncoder(trained, encoder.tap, name=name)
    state = trained.state_dict()
    body = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    load_exactly(encoder, body, source=name)
    return encoder


def supervised_network(name: str) -> Encoder:
    """Build an encoder that there may be weights for, and fetch none.

    Args:
        name: as for ``build_encoder``.

    Raises:
        CareError: There is none of that name, or it is one that nobody has trained with labels.
    """
    encoder = build_encoder(name)
    kind, _, rest = name.partition(":")
    if kind.endswith(GRAY):
        raise CareError(
            f"no ImageNet weights for {name!r}, whose images are gray; "
            f"supervised:{kind.removesuffix(GRAY)} takes gray images, too"
        )
    if kind.endswith(RGBN):
        raise CareError(
            f"no ImageNet weights for {name!r}, whose images have four bands; "
            f"supervised:{kind.removesuffix(RGBN)} takes a set of three"
        )
    if kind in SPACES:
        raise CareError(
            f"no ImageNet weights for {name!r}, two networks of lightness and of colours; take"
            f" supervised:{rest}, one of RGB, or random:{name}, which has no training"
        )
    return encoder


def _timm_model(model: str, name: str) -> nn.Module:
    """A model of timm with its default weights."""
    try:
        import timm

        trained: Any = timm.create_model(model, pretrained=True)
        if (trained.pretrained_cfg["mean"], trained.pretrained_cfg["std"]) != (MEAN, STD):
            raise ValueError(
                "timm's are for pixels of other means and deviations than ImageNet's, which "
                "evaluations use"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_weights(name, error, WANTED) from None
    return trained  # type: ignore[no-any-return]


def _torchvision_model(model: str, name: str) -> nn.Module:
    """A model of torchvision with its first weights, as in the paper's supervised rows."""
    wanted = WANTED
    try:
        weights = next(iter(models.get_model_weights(model)))
        wanted = f"{weights.url} in {torch.hub.get_dir()}/checkpoints: put it there by other means"
        trained: nn.Module = models.get_model(model, weights=weights)
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_weights(name, error, wanted) from None
    return trained


def _no_weights(name: str, error: Exception, wanted: str) -> CareError:
    reason = " ".join(str(error).split())
    return CareError(f"no ImageNet weights for {name!r} ({reason:.300}); wanted {wanted}")
