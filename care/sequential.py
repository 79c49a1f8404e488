"""The sequential design of Sec. 4.3: the transformer behind the encoder, in one stream.

It is what the paper's two parallel streams are compared with. Only the encoder is kept after the
training, as always, so that its evaluation tells what the transformer behind it has taught it.
"""

from typing import cast
from jaxtyping import Float
from torch import Tensor, nn
from care.attention import Transformer
from care.encoded import Encoded, bands_of
from care.encoders import Encoder
from care.objectives import Objective
from care.positions import Position, RelativePosition
from care.streams import CStream, streams_for
from shards.image_size import ImageSize


class SequentialEncoder(nn.Module):
    """An encoder whose tapped map goes through a transformer, which is pooled.

    Args:
        encoder: tapped at its last stage; what a training is for.
        transformer: for the channels and the size of that map.
    """

    def __init__(self, encoder: nn.Module, transformer: Transformer) -> None:
        super().__init__()
        self.encoder = encoder
        self.transformer = transformer
        self.features = transformer.features
        self.bands = bands_of(encoder)

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Encoded:
        """The encoder's map, and what the transformer makes of it, pooled."""
        last_map = self.encoder(images).map
        return Encoded(last_map, self.transformer(last_map))


def sequential_stream(
    encoder: str | Encoder,
    *,
    size: ImageSize | tuple[int, int],
    seed: int = 0,
    blocks: int = 5,
    position: type[Position] = RelativePosition,
    zero_gamma: bool = True,
    objective: Objective | None = None,
) -> CStream:
    """One stream of an encoder and a transformer behind it.

    It is the C-stream of ``care.streams_for``, whose T-stream's transformer has moved behind the
    encoder: so both start alike with the same seed.

    Args:
        encoder: the online CNN, or a name for ``build_encoder``; its tap is the transformer's
            input, in the paper's design the last stage.
        size: of the views, pixels: a side, or height and width, also as ``96x192``.
        seed: of all initial weights that are drawn here.
        blocks: attention blocks of the transformer (Table 7).
        position: encoding of the positions in its attention (Table 8).
        zero_gamma: every attention block starts as its shortcut; the released code resets this.
        objective: of the stream, by default ``BYOL()``.

    Raises:
        CareError: No encoder has that name.

    Source: Sec. 4.3; the released code has the parallel design alone.
    """
    c, t = streams_for(
        encoder,
        size=size,
        seed=seed,
        blocks=blocks,
        position=position,
        zero_gamma=zero_gamma,
        objective=objective,
    )
    transformer = cast(Transformer, t.backbone.online)
    c.backbone = c.objective.pair(SequentialEncoder(c.backbone.online, transformer))
    return c
