"""A linear classifier on an encoder's features, as weights: what a class's Grad-CAM is of."""

from typing import NamedTuple
import torch
from jaxtyping import Float, Int
from torch import Tensor
import shards
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.features import Features, device_of, extract
from care.evaluate.linear_features import FAST_LRS, train_on_features
from care.evaluate.linear_heads import HeadTraining, LinearHeads
from shards.image_size import ImageSize

# as of ``linear`` on features: passes over the set, images a step, and the share that is held out
_EPOCHS, _BATCH, _HELD_OUT = 80, 256, 0.2


class ClassProbe(NamedTuple):
    """A linear classifier of an encoder's features, on their device.

    Attributes:
        weights: of each class, for features as the encoder gives them.
        bias: of each class.
        classes: their names.
    """

    weights: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"]
    classes: tuple[str, ...]

    def predict(self, features: Float[Tensor, "b d"]) -> Int[Tensor, " b"]:
        """The class of each image."""
        return (features @ self.weights.T + self.bias).argmax(1)

    def number_of(self, name: str) -> int:
        """The number of a class.

        Raises:
            CareError: No class has that name.
        """
        if name not in self.classes:
            raise CareError(f"wanted a class among {', '.join(self.classes)}, got {name!r}")
        return self.classes.index(name)


def train_probe(
    encoder: Encoder, train: shards.ShardSet, *, size: ImageSize, seed: int = 0
) -> ClassProbe:
    """Train a linear classifier on features of centre crops, by the protocol of ``linear``'s.

    Args:
        encoder: used on the device it is on, in eval mode; not changed.
        train: images with classes, of which a part chooses the learning rate.
        size: of the crops, pixels.
        seed: of the layer's weights, the held-out part and the order.

    Raises:
        CareError: The set has no classes, or too few images to hold some out.
    """
    if not (train.labels >= 0).any():
        raise CareError(f"{train.path} has no image with a class, which a probe learns from")
    labelled = train.labelled()
    features = extract(encoder, labelled, size=size)
    training = HeadTraining(FAST_LRS, _EPOCHS, _BATCH, norm=False, held_out=_HELD_OUT, seed=seed)
    return _trained(features, training, tuple(labelled.classes), device_of(encoder))


def _trained(
    features: Features, training: HeadTraining, classes: tuple[str, ...], device: torch.device
) -> ClassProbe:
    """The classifier of the learning rate that is best on what is held out.

    What it expects of standardised features is written into weights for features as they are.
    """

    def loss_of(heads: LinearHeads, x: Tensor, rows: Tensor, kept: Tensor) -> Tensor:
        return heads.loss(x, features.y[rows].to(x.device), kept)

    trained = train_on_features(features.x, len(classes), training, loss_of, device=device)
    parts = trained.standardise.parts(features.x[trained.held_out])
    scores = trained.heads.scores(parts, features.y[trained.held_out])
    best = int(scores[0].argmax())
    layer = trained.heads.linear
    # of each part of train and each rate: the second part is all of train
    weight = layer.weight.detach().view(*trained.heads.shape, -1)[1, best]
    bias = layer.bias.detach().view(trained.heads.shape)[1, best]
    weights = weight / trained.standardise.deviation
    return ClassProbe(weights, bias - weights @ trained.standardise.mean, classes)
