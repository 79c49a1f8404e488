"""Where an encoder looks: a map for each image of a batch, of several kinds on one scale (Fig. 4).

Every kind is a map of the image's size and of mean 1, so that one colour scale is right for all of
them: 1 is what a map without preference has everywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.tapped import TappedEncoder
from care.vit import ViTEncoder

# what a map of an encoder alone may be
MapKind = Literal["grad-cam", "eigen-cam", "norm"]
# below this a map has no energy that could be made 1 on average
_NO_ENERGY = 1e-12


def attention_map(
    encoder: Encoder,
    images: Float[Tensor, "b _ h w"],
    *,
    kind: MapKind = "grad-cam",
    stage: str | None = None,
) -> Float[Tensor, "b h w"]:
    """Compute where an encoder looks, without labels.

    ``grad-cam`` is the Grad-CAM of a score that needs no class, ½‖pooled last map‖²; ``eigen-cam``
    the projection of a stage's map on its first principal component, towards the stronger
    activations; ``norm`` the Euclidean norm of the activations at each position.

    Args:
        encoder: used in eval mode, left in the mode that it was in.
        images: normalised, on the encoder's device.
        kind: which map; the first is the paper's figure's.
        stage: name of one of ``encoder.maps``, such as layer3; by default the last.

    Returns:
        A map for each image, of the image's size (bilinear) and of mean 1; 0 where the map is.

    Raises:
        CareError: The encoder has no such stage.

    Source: Sec. 4.3 and Fig. 4 for the idea; Selvaraju et al. 2017 for Grad-CAM; Muhammad and
    Yeasin 2020 for EigenCAM.
    """
    if kind == "grad-cam":
        return _label_free_grad_cam(encoder, images, stage)
    with evaluating(encoder), torch.no_grad():
        activations = map_of_stage(encoder.maps(images), stage)
    return stretched(_OF_ACTIVATIONS[kind](activations), images)


def class_map(
    encoder: Encoder,
    images: Float[Tensor, "b _ h w"],
    weights: Float[Tensor, "b d"],
    *,
    stage: str | None = None,
) -> Float[Tensor, "b h w"]:
    """Compute the Grad-CAM of a class of a linear classifier on an encoder's features.

    Args:
        encoder: a CNN, used in eval mode, left in the mode that it was in.
        images: normalised, on the encoder's device.
        weights: of the class that each image's map is for; the classifier's bias changes no map.
        stage: as of ``attention_map``.

    Returns:
        As ``attention_map``.

    Raises:
        CareError: The encoder has no such stage, or is no CNN.

    Source: Selvaraju et al. 2017.
    """
    with evaluating(encoder), torch.enable_grad():
        activations, features = _activations_and_features(encoder, images, stage)
        score = (features * weights).sum()
        (gradient,) = torch.autograd.grad(score, activations)
    return stretched(_weighted(activations, gradient), images)


def map_of_stage(maps: Mapping[str, Tensor], stage: str | None) -> Tensor:
    """The map of a stage by its name, by default the last.

    Raises:
        CareError: There is no such stage.
    """
    if stage and stage not in maps:
        raise _no_stage(stage, maps)
    return maps[stage] if stage else [*maps.values()][-1]


def stretched(
    cams: Float[Tensor, "b h w"], images: Float[Tensor, "b _ h2 w2"]
) -> Float[Tensor, "b h2 w2"]:
    """Maps in the size of their images, of mean 1."""
    cams = nn.functional.interpolate(cams[:, None], images.shape[2:], mode="bilinear")[:, 0]
    return cams / cams.mean((1, 2), keepdim=True).clamp_min(_NO_ENERGY)


def eigen_map(activations: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Project the activations of each image on the first principal component of its positions.

    A component has no sign of its own. It is given the one by which stronger activations, by their
    norm, have larger values; what is then negative is 0.
    """
    cells = activations.flatten(2).transpose(1, 2).double()
    centred = cells - cells.mean(1, keepdim=True)
    scores, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    projection = scores[:, :, 0] * sizes[:, :1]
    is_negative = (projection * cells.norm(dim=2)).sum(1, keepdim=True) < 0
    oriented: Tensor = torch.where(is_negative, -projection, projection).relu()
    return oriented.view(activations[:, 0].shape).to(activations)


def norm_map(activations: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """The Euclidean norm of the activations at each position."""
    norms: Tensor = activations.norm(dim=1)
    return norms


_OF_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "eigen-cam": eigen_map,
    "norm": norm_map,
}


def _no_stage(stage: str, stages: Iterable[str]) -> CareError:
    return CareError(f"this encoder has no stage {stage!r}; choose one of {', '.join(stages)}")


def _label_free_grad_cam(
    encoder: Encoder, images: Float[Tensor, "b _ h w"], stage: str | None
) -> Float[Tensor, "b h w"]:
    """The Grad-CAM of ½‖pooled last map‖²."""
    with evaluating(encoder), torch.enable_grad():
        maps = encoder.maps(images.detach().requires_grad_())
        activations = map_of_stage(maps, stage)
        score = map_of_stage(maps, None).mean((2, 3)).square().sum() / 2
        (gradient,) = torch.autograd.grad(score, activations)
    return stretched(_weighted(activations, gradient), images)


def _weighted(
    activations: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b h w"]:
    """Activations weighted by their channels' mean gradients, what is negative being 0."""
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * activations.detach()).sum(1).relu()


def _activations_and_features(
    encoder: Encoder, images: Float[Tensor, "b _ h w"], stage: str | None
) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b d"]]:
    """The map of a stage, and the features that depend on it.

    Raises:
        CareError: There is no such stage, or the features do not depend on any map.
    """
    inputs = images.detach().requires_grad_()
    if isinstance(encoder, ViTEncoder):
        raise CareError(
            f"{encoder.name or 'a vision transformer'} reads its class off a token of its own, "
            "which no map leads to; Grad-CAM of a class wants a CNN"
        )
    if not isinstance(encoder, TappedEncoder):
        maps = encoder.maps(inputs)
        return map_of_stage(maps, stage), map_of_stage(maps, None).mean((2, 3))
    if stage and stage not in encoder.stages:
        raise _no_stage(stage, encoder.stages)
    kept = list[Tensor]()

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kept.append(output)

    module = encoder.model.get_submodule(stage or encoder.stages[-1])
    with module.register_forward_hook(keep):
        features = encoder(inputs).features
    return kept[-1], features
