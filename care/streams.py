"""The two streams (Fig. 2): each a pair of networks, a pair of projectors, a predictor.

Nothing is hidden in ``forward``: it computes embeddings. The losses are ``care.loss``, the momentum
update is the caller's line after the optimizer's step.
"""

from collections.abc import Sequence
from typing import NamedTuple
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from care.attention import Transformer
from care.encoded import IMAGE_AXES, map_shape
from care.encoders import Encoder, build_encoder
from care.errors import CareError
from care.momentum import MomentumPair, Pair, update_targets
from care.objectives import BYOL, Objective
from care.objectives.criterion import Loss
from care.positions import Position, RelativePosition
from care.similarity import Embeddings
from care.vit import ViTEncoder
from shards.image_size import ImageSize

# views that the T-stream sees, too: what follows them are small crops, or patches
GLOBAL_VIEWS = 2


class Maps(NamedTuple):
    """Tapped feature maps of the two global views, [b, c, h, w] each, for the T-stream.

    Attributes:
        online: with gradient.
        target: without.
    """

    online: tuple[Tensor, ...]
    target: tuple[Tensor, ...]


class CStreamOut(NamedTuple):
    """What the C-stream gives of two views or more, embeddings not normalised.

    Attributes:
        online: predictor's outputs, f₁ of Eq. 1, of every view.
        target: target projector's outputs, f₂ of Eq. 1, of the global views, without gradient.
        maps: of the global views, for the T-stream.
        criterion: the loss that the embeddings are for.
        samples: numbers of the images, where the loss uses them; else None.
    """

    online: Embeddings
    target: Embeddings
    maps: Maps
    criterion: Loss = BYOL().loss
    samples: Int[Tensor, " b"] | None = None


class TStreamOut(NamedTuple):
    """What the T-stream gives of the maps of two views, embeddings not normalised.

    Attributes:
        online: predictor's outputs, f₃ of Eq. 3.
        target: target projector's outputs, f₄ of Eq. 3, without gradient.
        criterion: the loss that the embeddings are for.
    """

    online: Embeddings
    target: Embeddings
    criterion: Loss = BYOL().loss


class Stream(nn.Module):
    """What both streams share.

    Args:
        backbone: pair of networks that have ``features``, the width of their pooled output. The
            projectors come in a pair of the same kind.
        objective: heads and loss, by default ``BYOL()``, as in the paper.
    """

    def __init__(self, backbone: Pair, objective: Objective | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective or BYOL()
        if self.objective.branches > getattr(backbone.online, "branches", 1):
            raise CareError(
                f"{type(self.objective).__name__} compares what two encoders make of lightness and"
                " of colour; wanted an encoder such as lab:resnet50 or ydbdr:resnet50-small"
            )
        projector = self.objective.projector(int(backbone.online.features))  # type: ignore[arg-type]
        self.projector = type(backbone)(projector)
        self.predictor = self.objective.predictor()
        puzzle_head = self.objective.puzzle_head(int(backbone.online.features))  # type: ignore[arg-type]
        if puzzle_head is not None:
            self.puzzle_head = puzzle_head
        self.criterion = self.objective.criterion()

    def online_parameters(self) -> list[nn.Parameter]:
        """List what gradients train: encoder or transformer, heads, perhaps prototypes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def update(self, momentum: float, *, parts: int = 1) -> None:
        """Go on to the next step: both targets move towards their online twins.

        A queue or prototypes of the objective go on, too.

        Args:
            momentum: the coefficient τ, see ``care.momentum_at``.
            parts: into which the step's batch was cut, each with a loss of its own.
        """
        update_targets([self.backbone, self.projector], momentum)
        self.criterion.after_step(parts)

    def embed(
        self,
        online: Sequence[Float[Tensor, "b _"]],
        target: Sequence[Float[Tensor, "b _"]],
    ) -> tuple[tuple[Float[Tensor, "b d"], ...], tuple[Float[Tensor, "b d"], ...]]:
        """Embed pooled features of any number of views.

        Args:
            online: features by the online network, one tensor for each view.
            target: features by the target network, of the same views or of the first ones alone.

        Returns:
            Embeddings of the online and of the target network, one tensor for each of their views;
            the target's without gradient, and without a predictor.
        """
        online_projections, target_projections = self.projector(online, target)
        embeddings = tuple(self.predictor(projection) for projection in online_projections)
        return embeddings, tuple(projection.detach() for projection in target_projections)


class CStream(Stream):
    """The CNN stream: an SSL method, BYOL by default, on a pair of encoders (Sec. 3.1)."""

    def forward(
        self,
        *views: Float[Tensor, "b _ _ _"] | Float[Tensor, "b 9 _ _ _"],
        samples: Int[Tensor, " b"] | None = None,
    ) -> CStreamOut:
        """Embed the views of a batch, as many as the objective learns from.

        Each view goes through the networks by itself, so batch norm sees one view at a time. The
        target network and the T-stream see the first two.

        Args:
            *views: of each image, normalised by ImageNet's mean and standard deviation: first crops
                [b, 3, h, w], of which those behind the first two may be smaller, then patches
                [b, 9, 3, h, w], see ``care.train.View``.
            samples: numbers of the images, of which an objective with a bank keeps embeddings.

        Raises:
            CareError: The objective does not learn from so many views, or wants samples.
        """
        images = [view for view in views if view.ndim == IMAGE_AXES]
        puzzles = views[len(images) :]
        self.objective.check_views(len(images), len(puzzles))
        online_encoded, target_encoded = self.backbone(images, images[:GLOBAL_VIEWS])
        maps = Maps(
            online=tuple(encoded.map for encoded in online_encoded[:GLOBAL_VIEWS]),
            target=tuple(encoded.map.detach() for encoded in target_encoded),
        )
        online, target = self.embed(
            [encoded.features for encoded in online_encoded],
            [encoded.features for encoded in target_encoded],
        )
        online += tuple(self.embed_patches(patches) for patches in puzzles)
        return self.output(online, target, maps, samples)

    def embed_patches(self, patches: Float[Tensor, "b n _ h w"]) -> Float[Tensor, "b d"]:
        """Embed images of which patches are seen, by the online network.

        Args:
            patches: of each image, in the order in which they are seen.
        """
        encoded, _ = self.backbone([patches.flatten(0, 1)], [])
        features = encoded[0].features.unflatten(0, patches.shape[:2])
        embeddings: Tensor = self.puzzle_head(features)
        return embeddings

    def output(
        self,
        online: Embeddings,
        target: Embeddings,
        maps: Maps,
        samples: Int[Tensor, " b"] | None = None,
    ) -> CStreamOut:
        """Put embeddings together with the loss that they are for.

        Args:
            online: of the online network, of every view.
            target: of the target network.
            maps: of the global views.
            samples: numbers of the images.

        Raises:
            CareError: The objective keeps something of each image, and there are no samples.
        """
        uses_samples = self.criterion.uses_samples
        if uses_samples and samples is None:
            raise CareError(
                f"{type(self.objective).__name__} keeps an embedding of every image and wants their"
                " numbers; call c(*views, samples=views.samples) with the views of"
                " care.train.batches"
            )
        return CStreamOut(online, target, maps, self.criterion, samples if uses_samples else None)


class TStream(Stream):
    """The transformer stream: the same on the maps of the encoders (Sec. 3.2).

    Args:
        backbone: pair of transformers.
        objective: heads and loss, by default ``BYOL()``, as in the paper.
        detach: no gradient of this stream goes on into the encoder, as in the paper's text. By
            default it trains the encoder's stages up to the tap, as in the released code.
    """

    def __init__(
        self, backbone: Pair, objective: Objective | None = None, *, detach: bool = False
    ) -> None:
        super().__init__(backbone, objective)
        self.detach = detach

    def forward(self, maps: Maps) -> TStreamOut:
        """Embed the maps of the two global views.

        Raises:
            CareError: There is one view alone.
        """
        self.objective.check_views(len(maps.online))
        online, target = self.embed_maps(maps.online, maps.target)
        return TStreamOut(online, target, self.criterion)

    def embed_maps(
        self,
        online: Sequence[Float[Tensor, "b c h w"]],
        target: Sequence[Float[Tensor, "b c h w"]],
    ) -> tuple[tuple[Float[Tensor, "b d"], ...], tuple[Float[Tensor, "b d"], ...]]:
        """Embed the maps of any number of views.

        Args:
            online: maps by the online encoder, one tensor for each view.
            target: maps by the target encoder, likewise.

        Returns:
            As ``embed``.
        """
        if self.detach:
            online = [feature_map.detach() for feature_map in online]
        return self.embed(*self.backbone(online, target))


def c_stream_for(
    encoder: str | Encoder,
    *,
    size: ImageSize | None = None,
    seed: int = 0,
    objective: Objective | None = None,
) -> CStream:
    """Make the C-stream alone around an encoder, such as a ViT, which has no T-stream.

    Its heads begin with other weights than those that ``streams_for`` draws after a transformer.

    Args:
        encoder: the online network, used as it is, or a name for ``build_encoder``.
        size: side of the views, pixels, whose positions a ViT has; ``care.train.pretrain`` fits
            them itself.
        seed: of all initial weights that are drawn here; torch's global generator is left as it
            was.
        objective: by default ``BYOL()``.

    Raises:
        CareError: No encoder has that name.
    """
    objective = objective or BYOL()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = build_encoder(encoder) if isinstance(encoder, str) else encoder
        if isinstance(network, ViTEncoder) and size is not None:
            network.fit(size)
        return CStream(objective.pair(network), objective)


def streams_for(
    encoder: str | Encoder,
    *,
    size: ImageSize | tuple[int, int],
    seed: int = 0,
    blocks: int = 5,
    position: type[Position] = RelativePosition,
    zero_gamma: bool = True,
    detach: bool = False,
    objective: Objective | None = None,
) -> tuple[CStream, TStream]:
    """Make both streams around an encoder, whose widths and map the transformer is fitted to.

    The T-stream is BYOL's whatever the C-stream's objective is, with a momentum transformer. Its
    heads are as wide as the objective's, since Eq. 4 compares embeddings of one width.

    Args:
        encoder: the online CNN, used as it is, or a name for ``build_encoder``.
        size: of the views, pixels: a side, or height and width, also as ``96x192``.
        seed: of all initial weights that are drawn here; torch's global generator is left as it
            was.
        blocks: attention blocks of the transformer; 5 are best of 2 to 6 (Table 7).
        position: encoding of the positions in its attention (Table 8).
        zero_gamma: every attention block starts as its shortcut; the released code resets this.
        detach: no gradient of the T-stream goes on into the encoder, as in the paper's text.
        objective: of the C-stream, by default ``BYOL()``; its widths are the T-stream's too.

    Returns:
        The C-stream and the T-stream.

    Raises:
        CareError: No encoder has that name, or it is no CNN.
    """
    objective = objective or BYOL()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        cnn = build_encoder(encoder) if isinstance(encoder, str) else encoder
        if isinstance(cnn, ViTEncoder):
            raise CareError(
                f"{cnn.name or 'a vision transformer'} has no T-stream, which guides a CNN by a "
                "transformer's attention; train its C-stream alone (--no-t-stream, "
                "care.c_stream_for)"
            )
        channels, height, width = map_shape(cnn, size)
        transformer = Transformer(
            channels,
            cnn.features,
            map_size=(height, width),
            blocks=blocks,
            position=position,
            zero_gamma=zero_gamma,
        )
        c_stream = CStream(objective.pair(cnn), objective)
        t_objective = BYOL(objective.hidden, objective.dim)
        t_stream = TStream(MomentumPair(transformer), t_objective, detach=detach)
        return c_stream, t_stream
