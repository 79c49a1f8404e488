"""Any CNN as an encoder: its pooled features, and the map of one of its modules.

Nothing is asked of the network but that it gives pooled features: widths, maps and the classifier
are read off a trial run on a blank image.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.encoded import Encoded, evaluating, refuse_bands
from care.errors import CareError
from shards.image_size import ImageSize

# px: side of the blank image, and of those that such networks are trained on
SIDE = 224


class TappedEncoder(nn.Module):
    """A CNN of torchvision's, timm's or one's own, tapped at one of its modules.

    Args:
        model: used as it is, not copied. A linear layer that it ends in is taken for its classifier
            and replaced by the identity.
        tap: dotted name of the module whose output is the map for the T-stream.
        name: what ``build_encoder`` rebuilds it from, recorded in checkpoints.

    Attributes:
        features: channels of the pooled features.
        size: of the images that the network is trained on, pixels.
        stages: names of the last modules at each resolution, the finest first.
        assumed: what is supposed of it that its weights do not tell; "" of our own.

    Raises:
        CareError: No module of that name gives a map, in which case the stages are listed, or the
            network does not give pooled features [b, d].
    """

    def __init__(self, model: nn.Module, tap: str, *, name: str = "") -> None:
        super().__init__()
        self.model = model
        self.tap = tap
        self.name = name
        self.size: ImageSize = SIDE
        self.assumed = ""
        self.input: nn.Module = nn.Identity()  # or what others normalise pixels by
        with evaluating(model), torch.no_grad():
            blank = next(model.parameters()).new_zeros(1, 3, SIDE, SIDE)
            outputs, features = self._run(blank, _modules_with_weights(model))
            classifier = _classifier(model, outputs, features)
            if classifier is not None:
                model.set_submodule(classifier, nn.Identity())
                features = model(blank)
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise CareError(
                f"wanted a network that gives pooled features [b, d], {type(model).__name__} gives"
                " something else"
            )
        self.features = features.shape[1]
        shapes = {path: output.shape for path, output in outputs.items() if _is_map(output)}
        self.stages = _stages(shapes)
        if tap not in shapes:
            stages = ["{} ({}×{}×{})".format(path, *shapes[path][1:]) for path in self.stages]
            raise CareError(
                f"{tap!r} is no tap of this {type(model).__name__}; the last of each size (at"
                f" {SIDE} px) are: {', '.join(stages)}"
            )

    def maps(self, images: Float[Tensor, "b _ h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """Compute the last map of each resolution, by name of its module."""
        maps, _ = self._run(images, self.stages)
        return maps

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        outputs, features = self._run(images, [self.tap])
        return Encoded(outputs[self.tap], features)

    def _run(self, images: Tensor, paths: Iterable[str]) -> tuple[dict[str, Any], Any]:
        """Outputs of the modules of these names, and of the network.

        Hooks are there for the time of one call: one that stays would, in a copy of the network,
        still write into the original.
        """
        refuse_bands(images.shape[1], self)
        outputs = dict[str, Any]()

        def keep(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[path] = output

        with ExitStack() as hooks:
            for path in paths:
                module = self.model.get_submodule(path)
                hooks.enter_context(module.register_forward_hook(partial(keep, path)))
            features = self.model(self.input(images))
        return outputs, features


def _modules_with_weights(model: nn.Module) -> list[str]:
    """Names of the modules below the model that have parameters, outer ones first."""
    paths = []
    for path, module in model.named_modules():
        has_weights = next(module.parameters(), None) is not None
        if path and has_weights:
            paths.append(path)
    return paths


def _classifier(model: nn.Module, outputs: dict[str, Any], features: Any) -> str | None:
    """Name of the linear layer whose output is the network's, if there is one."""
    for path, output in outputs.items():
        if output is features and isinstance(model.get_submodule(path), nn.Linear):
            return path
    return None


def _is_map(output: Any) -> bool:
    """Whether a square image became a map of more than a pixel."""
    return (
        isinstance(output, Tensor)
        and output.ndim == 4
        and output.shape[2] == output.shape[3]
        and output.shape[2] > 1
    )


def _stages(shapes: dict[str, torch.Size]) -> list[str]:
    """Names of the last modules at each resolution.

    Only modules at the top, or one level below, count: what lies deeper may be the beginning of a
    later stage, before its stride.
    """
    by_resolution = dict[int, str]()
    for path, shape in shapes.items():
        if path.count(".") < 2:
            by_resolution[shape[2]] = path
    return list(by_resolution.values())
