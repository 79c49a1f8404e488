"""The two streams. Both have one shape: a pair of networks, a pair of projectors, a predictor (Fig. 2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from care.attention import Transformer
from care.encoders import Encoder, build_encoder, map_shape
from care.momentum import MomentumPair, Pair, both, update_targets
from care.objectives import BYOL, Embeddings, Objective


class Maps(NamedTuple):
    """Tapped feature maps of the two views, [b, c, h, w] each."""

    online: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]


class CStreamOut(NamedTuple):
    """Embeddings of the two views, not normalised: predictor's, f₁ of Eq. 1, and target projector's without gradient, f₂; and the maps."""

    online: Embeddings
    target: Embeddings
    maps: Maps
    objective: Objective = BYOL()


class TStreamOut(NamedTuple):
    """As the C-stream's: ``online`` is f₃ of Eq. 3, ``target`` f₄."""

    online: Embeddings
    target: Embeddings
    objective: Objective = BYOL()


class Stream(nn.Module):
    """A ``backbone``, a pair of networks whose ``features`` is the width of their pooled output, and an ``objective``: heads and loss."""

    def __init__(self, backbone: Pair, objective: Objective | None = None) -> None:
        super().__init__()
        self.backbone, self.objective = backbone, objective or BYOL()
        self.projector = type(backbone)(self.objective.projector(int(backbone.online.features)))  # type: ignore[arg-type]
        self.predictor = self.objective.predictor()

    def online_parameters(self) -> list[nn.Parameter]:
        """The parameters that gradients train: encoder or transformer, projector, predictor."""
        return [p for p in self.parameters() if p.requires_grad]

    def update(self, momentum: float) -> None:
        """Move both targets towards their online twins."""
        update_targets([self.backbone, self.projector], momentum)

    def _embed(self, online: Sequence[Tensor], target: Sequence[Tensor]) -> tuple[Embeddings, Embeddings]:
        (one, two), (three, four) = both(self.projector, online, target)
        return (self.predictor(one), self.predictor(two)), (three.detach(), four.detach())


class CStream(Stream):
    """The CNN stream: an SSL method, BYOL by default, on a pair of encoders (Sec. 3.1)."""

    def forward(self, x1: Float[Tensor, "b 3 h w"], x2: Float[Tensor, "b 3 h w"]) -> CStreamOut:
        """Embed the two views; each goes through the network by itself, so batch norm sees one view at a time."""
        (one, two), (three, four) = both(self.backbone, (x1, x2), (x1, x2))
        maps = Maps((one.map, two.map), (three.map.detach(), four.map.detach()))
        return CStreamOut(*self._embed((one.features, two.features), (three.features, four.features)), maps, self.objective)


class TStream(Stream):
    """The same with transformers on the encoders' maps (Sec. 3.2); with ``detach`` no gradient goes on into the encoder (paper's text)."""

    def __init__(self, backbone: Pair, objective: Objective | None = None, *, detach: bool = False) -> None:
        super().__init__(backbone, objective)
        self.detach = detach

    def forward(self, maps: Maps) -> TStreamOut:
        """Embed the maps of the two views."""
        online = [m.detach() if self.detach else m for m in maps.online]
        return TStreamOut(*self._embed(*both(self.backbone, online, maps.target)), self.objective)


def streams_for(
    encoder: str | Encoder, *, size: int | tuple[int, int], seed: int = 0, blocks: int = 5, objective: Objective | None = None
) -> tuple[CStream, TStream]:
    """Both streams around an encoder, a name for ``build_encoder`` or the network itself; the transformer's shape is read off it.

    ``size`` is that of the views in pixels, a side, or height and width. All initial weights come from ``seed``; torch's global generator
    is left as it was. The C-stream has the ``objective``, by default BYOL's, the T-stream always BYOL's, of the same widths.
    """
    objective = objective or BYOL()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        cnn = build_encoder(encoder) if isinstance(encoder, str) else encoder
        channels, height, width = map_shape(cnn, size)
        transformer = Transformer(channels, cnn.features, map_size=(height, width), blocks=blocks)
        t = BYOL(objective.hidden, objective.dim)
        return CStream(objective.pair(cnn), objective), TStream(MomentumPair(transformer), t)
