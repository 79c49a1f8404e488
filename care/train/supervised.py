"""Encoders that were trained with ImageNet's labels, from torchvision or timm."""

from typing import Any
import torch
from torchvision import models
from care.encoders import ENCODERS, Encoder, build_encoder
from care.errors import CareError
from care.tapped import TappedEncoder
from care.train.photometrics import MEAN, STD
from care.train.weights import load_exactly


def supervised_encoder(name: str) -> Encoder:
    encoder = build_encoder(name)  # its errors come first
    source, _, rest = name.partition(":")
    model = (
        {"resnet50x2": "wide_resnet50_2"}.get(source, source)
        if source in ENCODERS
        else rest.partition(":")[0]
    )
    wanted = (
        "a name that torchvision or timm has some for, and a network or a cache to get them from"
    )
    try:
        if source == "timm":
            import timm

            trained: Any = timm.create_model(model, pretrained=True)
            if (trained.pretrained_cfg["mean"], trained.pretrained_cfg["std"]) != (MEAN, STD):
                raise ValueError(
                    "timm's are for pixels of other means and deviations than ImageNet's, which evaluations use"
                )
        else:
            weights = next(iter(models.get_model_weights(model)))
            wanted = (
                f"{weights.url} in {torch.hub.get_dir()}/checkpoints: put it there by other means"
            )
            trained = models.get_model(model, weights=weights)
    except (OSError, RuntimeError, ValueError) as error:
        raise CareError(
            f"no ImageNet weights for {name!r} ({' '.join(str(error).split()):.300}); wanted {wanted}"
        ) from None
    if isinstance(encoder, TappedEncoder):
        return TappedEncoder(trained, encoder.tap, name=name)
    load_exactly(
        encoder,
        {key: value for key, value in trained.state_dict().items() if not key.startswith("fc.")},
        source=name,
    )
    return encoder
