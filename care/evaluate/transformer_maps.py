"""What the transformer of a T-stream attends to, as maps over the images (Sec. 3.2)."""

from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor
from care.attention import SelfAttention2d, Transformer
from care.encoded import evaluating
from care.encoders import Encoder
from care.errors import CareError
from care.evaluate.attention_maps import stretched


class Attending(NamedTuple):
    """Whose attention is looked at.

    Attributes:
        block: number of the transformer's block, from 1 on; None: the last.
        head: number of its head, from 1 on; None: the mean over all.
        query: place in the image from which it is looked, parts of its width from the left and of
            its height from the top; None: the mean over all positions.
    """

    block: int | None = None
    head: int | None = None
    query: tuple[float, float] | None = None

    def describe(self, transformer: Transformer) -> str:
        """What is looked at, in words.

        Args:
            transformer: which has blocks and heads.
        """
        blocks = len(transformer.blocks)
        head = f"head {self.head}" if self.head else f"mean over {transformer.heads} heads"
        query = "mean over all positions"
        if self.query is not None:
            query = "from position {:g}, {:g}".format(*self.query)
        return f"attention of block {self.block or blocks} of {blocks}, {head}, {query}"


def transformer_map(
    encoder: Encoder,
    transformer: Transformer,
    images: Float[Tensor, "b _ h w"],
    attending: Attending | None = None,
) -> Float[Tensor, "b h w"]:
    """Compute what a T-stream's transformer attends to in images.

    A row of its attention says for one position, the query, how much of every other it takes in;
    these shares are the map.

    Args:
        encoder: whose tapped map the transformer is for; used in eval mode, as it was afterwards.
        transformer: of the T-stream, likewise.
        images: normalised, on the networks' device.
        attending: which block, heads and query; by default the mean over all heads of the last
            block and over all positions.

    Returns:
        A map for each image, of the image's size (bilinear) and of mean 1.

    Raises:
        CareError: The transformer has no such block or head, or the query is outside the image.

    Source: Eq. 2, of which it is the softmax.
    """
    attending = attending or Attending()
    _check(transformer, attending)
    number = (attending.block or len(transformer.blocks)) - 1
    with evaluating(encoder), evaluating(transformer), torch.no_grad():
        inputs = transformer.blocks[:number](encoder(images).map)
        block = transformer.blocks[number]
        inputs = block.reduce(inputs)  # type: ignore[operator]
        weights = attention_weights(block.attention, inputs)  # type: ignore[arg-type]
    height, width = inputs.shape[2:]
    by_query = weights.mean(1) if attending.head is None else weights[:, attending.head - 1]
    shares = by_query.mean(1)
    if attending.query is not None:
        x, y = attending.query
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        shares = by_query[:, row * width + column]
    return stretched(shares.reshape(len(images), height, width), images)


def attention_weights(
    attention: SelfAttention2d, x: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b heads tokens tokens"]:
    """The softmax of Eq. 2: for each head and position the shares of all positions.

    Args:
        attention: computes the same inside of a kernel that does not give it away.
        x: its input.
    """
    height, width = x.shape[2:]
    tokens = attention.qkv(x).flatten(2).transpose(1, 2)
    q, k, _ = tokens.unflatten(2, (3, attention.heads, attention.dim)).permute(2, 0, 3, 1, 4)
    q, k = attention.position.fold(q, k, (height, width))
    weights: Tensor = ((q @ k.transpose(2, 3)) * attention.dim**-0.5).softmax(3)
    return weights


def _check(transformer: Transformer, attending: Attending) -> None:
    """Refuse a block, a head or a query that is not there.

    Raises:
        CareError: It names what there is.
    """
    numbers = {
        "block": (attending.block, len(transformer.blocks)),
        "head": (attending.head, transformer.heads),
    }
    for name, (number, count) in numbers.items():
        if number is not None and not 1 <= number <= count:
            raise CareError(f"wanted a {name} from 1 to {count}, got {number}")
    if attending.query is not None and not all(0 <= part <= 1 for part in attending.query):
        raise CareError(
            "wanted a query by parts of the image's width and height, from 0 to 1, got "
            "{:g}, {:g}".format(*attending.query)
        )
