"""Any CNN as an encoder: its pooled features, and the map of one of its modules."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.encoded import Encoded, evaluating
from care.errors import CareError


class TappedEncoder(nn.Module):
    """Any CNN itself, less a linear layer that it ends in: its pooled features, and the map of its module ``tap``; none: ``CareError``."""

    def __init__(self, model: nn.Module, tap: str, *, name: str = "") -> None:
        super().__init__()
        self.model, self.tap, self.name, self.size = (
            model,
            tap,
            name,
            224,
        )  # px: side of the images it is trained on
        with evaluating(model), torch.no_grad():
            weighted = [
                path
                for path, module in model.named_modules()
                if path and next(module.parameters(), None) is not None
            ]
            outputs, features = self._run(
                next(model.parameters()).new_zeros(1, 3, 224, 224), weighted
            )
            for path, output in outputs.items():
                if output is features and isinstance(model.get_submodule(path), nn.Linear):
                    model.set_submodule(path, nn.Identity())
                    features = model(features.new_zeros(1, 3, 224, 224))
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise CareError(
                f"wanted a network that gives pooled features [b, d], {type(model).__name__} gives something else"
            )
        self.features = features.shape[1]
        maps = {
            path: x.shape
            for path, x in outputs.items()
            if isinstance(x, Tensor) and x.ndim == 4 and x.shape[2] == x.shape[3] > 1
        }
        # the last module at each resolution; what lies deeper than stages may be a later stage's beginning, before its stride
        self.stages = [
            *{shape[2]: path for path, shape in maps.items() if path.count(".") < 2}.values()
        ]
        if tap not in maps:
            listed = ", ".join(
                "{} ({}×{}×{})".format(path, *maps[path][1:]) for path in self.stages
            )
            raise CareError(
                f"{tap!r} is no tap of this {type(model).__name__}; the last of each size (at 224 px) are: {listed}"
            )

    def _run(self, images: Tensor, paths: Iterable[str]) -> tuple[dict[str, Any], Any]:
        # hooks for the time of one call: one that stays would, in a copy, still write into the original
        out = dict[str, Any]()
        with ExitStack() as hooks:
            for path in paths:
                hooks.enter_context(
                    self.model.get_submodule(path).register_forward_hook(
                        lambda *call, at=path: out.update({at: call[2]})
                    )
                )
            return out, self.model(images)

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """The last map of each resolution, by name of the module."""
        return self._run(images, self.stages)[0]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation."""
        outputs, features = self._run(images, [self.tap])
        return Encoded(outputs[self.tap], features)
