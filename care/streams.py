"""The two streams. Both have one shape: a momentum pair, a pair of projectors, a predictor (Fig. 2)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from care.attention import Transformer
from care.encoders import build_encoder, map_shape
from care.heads import mlp_head
from care.momentum import MomentumPair, update_targets

Embeddings = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]


class Maps(NamedTuple):
    """Tapped feature maps of the two views, [b, c, h, w] each."""

    online: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]


class CStreamOut(NamedTuple):
    """What the C-stream gives: embeddings of the two views, not normalised, and the encoders' maps."""

    online: Embeddings
    """Predictor outputs (f₁ of Eq. 1)."""
    target: Embeddings
    """Target projector outputs (f₂ of Eq. 1), without gradient."""
    maps: Maps


class TStreamOut(NamedTuple):
    """What the T-stream gives: embeddings of the two views, not normalised."""

    online: Embeddings
    """Predictor outputs (f₃ of Eq. 3)."""
    target: Embeddings
    """Target projector outputs (f₄ of Eq. 3), without gradient."""


class Stream(nn.Module):
    """What both streams share.

    Args:
        backbone: momentum pair of networks whose ``features`` attribute is the width of their pooled output.
        hidden: hidden width of projector and predictor.
        dim: channels of the embeddings.
    """

    def __init__(self, backbone: MomentumPair, *, hidden: int = 4096, dim: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = MomentumPair(mlp_head(int(backbone.online.features), hidden=hidden, outputs=dim))  # type: ignore[arg-type]
        self.predictor = mlp_head(dim, hidden=hidden, outputs=dim)

    def online_parameters(self) -> list[nn.Parameter]:
        """The parameters that gradients train: encoder or transformer, projector, predictor."""
        return [p for p in self.parameters() if p.requires_grad]

    def update(self, momentum: float) -> None:
        """Move both targets towards their online twins."""
        update_targets([self.backbone, self.projector], momentum)

    def _online(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.predictor(self.projector.online(features))
        return embedding


class CStream(Stream):
    """The CNN stream: BYOL on a momentum pair of encoders (Sec. 3.1)."""

    def forward(self, x1: Float[Tensor, "b 3 h w"], x2: Float[Tensor, "b 3 h w"]) -> CStreamOut:
        """Embed the two views; each goes through the network by itself, so batch norm sees one view at a time."""
        one, two = self.backbone.online(x1), self.backbone.online(x2)
        with torch.no_grad():
            target_one, target_two = self.backbone.target(x1), self.backbone.target(x2)
            target = self.projector.target(target_one.features), self.projector.target(target_two.features)
        online = self._online(one.features), self._online(two.features)
        return CStreamOut(online, target, Maps((one.map, two.map), (target_one.map, target_two.map)))


class TStream(Stream):
    """The transformer stream: the same on the encoders' maps (Sec. 3.2).

    Args:
        backbone: momentum pair of transformers.
        hidden: hidden width of projector and predictor.
        dim: channels of the embeddings.
        detach: the T-stream's losses train the T-stream alone (the paper's text); by default their gradient flows on into the
            encoder's stages up to the tap (the released code).
    """

    def __init__(self, backbone: MomentumPair, *, hidden: int = 4096, dim: int = 256, detach: bool = False) -> None:
        super().__init__(backbone, hidden=hidden, dim=dim)
        self.detach = detach

    def forward(self, maps: Maps) -> TStreamOut:
        """Embed the maps of the two views."""
        one, two = (self._online(self.backbone.online(m.detach() if self.detach else m)) for m in maps.online)
        with torch.no_grad():
            target_one, target_two = (self.projector.target(self.backbone.target(m)) for m in maps.target)
        return TStreamOut((one, two), (target_one, target_two))


def streams_for(encoder: str, *, size: int, seed: int = 0, blocks: int = 5, hidden: int = 4096) -> tuple[CStream, TStream]:
    """Both streams around a new encoder, the transformer's shape read off it.

    Args:
        encoder: a name in ``ENCODERS``.
        size: side of the views, pixels.
        seed: of all initial weights; torch's global generator is left as it was.
        blocks: attention blocks.
        hidden: hidden width of the heads.

    Raises:
        CareError: no encoder has that name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cnn = build_encoder(encoder)
        channels, height, width = map_shape(cnn, size)
        transformer = Transformer(channels, cnn.features, map_size=(height, width), blocks=blocks)
        return CStream(MomentumPair(cnn), hidden=hidden), TStream(MomentumPair(transformer), hidden=hidden)
