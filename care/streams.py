"""The two streams, of one shape: a pair of networks, a pair of projectors, a predictor (Fig. 2)."""

from collections.abc import Sequence
from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.attention import Transformer
from care.encoded import map_shape
from care.encoders import Encoder, build_encoder
from care.momentum import MomentumPair, Siamese, update_targets
from care.objectives import BYOL, Objective
from care.positions import NoPosition, RelativePosition
from care.similarity import Embeddings


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

    def __init__(self, backbone: Siamese, objective: Objective | None = None) -> None:
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

    def embed(
        self,
        online: Sequence[Float[Tensor, "b _"]],
        target: Sequence[Float[Tensor, "b _"]],
    ) -> tuple[tuple[Float[Tensor, "b d"], ...], tuple[Float[Tensor, "b d"], ...]]:
        """Embeddings of pooled features, a tensor a view, of the online and the target network."""
        online_projections, target_projections = self.projector(online, target)
        embeddings = tuple(self.predictor(projection) for projection in online_projections)
        return embeddings, tuple(projection.detach() for projection in target_projections)


class CStream(Stream):
    """The CNN stream: an SSL method, BYOL by default, on a pair of encoders (Sec. 3.1)."""

    def forward(self, x1: Float[Tensor, "b 3 h w"], x2: Float[Tensor, "b 3 h w"]) -> CStreamOut:
        """Embed the two views; each goes through the network by itself, so batch norm sees one view at a time."""
        (one, two), (three, four) = self.backbone((x1, x2), (x1, x2))
        maps = Maps((one.map, two.map), (three.map.detach(), four.map.detach()))
        online, target = self.embed((one.features, two.features), (three.features, four.features))
        return CStreamOut((online[0], online[1]), (target[0], target[1]), maps, self.objective)


class TStream(Stream):
    """The same with transformers on the encoders' maps (Sec. 3.2); with ``detach`` no gradient goes on into the encoder (paper's text)."""

    def __init__(
        self, backbone: Siamese, objective: Objective | None = None, *, detach: bool = False
    ) -> None:
        super().__init__(backbone, objective)
        self.detach = detach

    def forward(self, maps: Maps) -> TStreamOut:
        """Embed the maps of the two views."""
        online, target = self.embed_maps(maps.online, maps.target)
        return TStreamOut((online[0], online[1]), (target[0], target[1]), self.objective)

    def embed_maps(
        self,
        online: Sequence[Float[Tensor, "b c h w"]],
        target: Sequence[Float[Tensor, "b c h w"]],
    ) -> tuple[tuple[Float[Tensor, "b d"], ...], tuple[Float[Tensor, "b d"], ...]]:
        """Embeddings of the maps of any number of views, of the online and the target encoder."""
        if self.detach:
            online = [feature_map.detach() for feature_map in online]
        return self.embed(*self.backbone(online, target))


def streams_for(
    encoder: str | Encoder,
    *,
    size: int | tuple[int, int],
    seed: int = 0,
    blocks: int = 5,
    position: type[NoPosition] = RelativePosition,
    zero_gamma: bool = True,
    detach: bool = False,
    objective: Objective | None = None,
) -> tuple[CStream, TStream]:
    """Both streams around an encoder; the T-stream is BYOL's, with heads as wide as the C-stream's.

    Args:
        encoder: the online CNN, or a name for ``build_encoder``.
        size: of the views, pixels: a side, or height and width.
        seed: of all initial weights that are drawn here.
        blocks: attention blocks of the transformer (Table 7).
        position: encoding of the positions in its attention (Table 8).
        zero_gamma: every attention block starts as its shortcut; the released code resets this.
        detach: no gradient of the T-stream goes on into the encoder, as in the paper's text.
        objective: of the C-stream, by default ``BYOL()``.

    Raises:
        CareError: No encoder has that name.
    """
    objective = objective or BYOL()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        cnn = build_encoder(encoder) if isinstance(encoder, str) else encoder
        channels, height, width = map_shape(cnn, size)
        transformer = Transformer(
            channels,
            cnn.features,
            map_size=(height, width),
            blocks=blocks,
            position=position,
            zero_gamma=zero_gamma,
        )
        c = CStream(objective.pair(cnn), objective)
        t_objective = BYOL(objective.hidden, objective.dim)
        return c, TStream(MomentumPair(transformer), t_objective, detach=detach)
