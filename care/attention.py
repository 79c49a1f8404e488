"""The transformer of the T-stream: attention over a map, each pixel a token (Sec. 3.2).

A transformer is for maps of one size, given as ``map_size``, but takes any: only the learned
positions depend on it, and they are stretched (``care.positions``).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation
from care.errors import CareError
from care.positions import Position, RelativePosition


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over the pixels of a map (Eq. 2).

    It computes softmax((q·pᵀ + q·kᵀ) / √dim) · v, for each head.

    Args:
        channels: of the input.
        map_size: height and width of the maps that it is built for.
        heads: number of heads; 4 are the released code's.
        dim: channels of each head; 128 are the released code's.
        position: encoding of the positions, the term q·pᵀ.

    Source: Eq. 2, Sec. 3.2.
    """

    def __init__(
        self,
        channels: int,
        *,
        map_size: tuple[int, int],
        heads: int = 4,
        dim: int = 128,
        position: type[Position] = RelativePosition,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dim = dim
        self.qkv = nn.Conv2d(channels, 3 * heads * dim, 1, bias=False)
        self.position = position(dim, map_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b heads_dim h w"]:
        """Attend over a map, which may have another size than ``map_size``."""
        b, _, height, width = x.shape
        tokens = self.qkv(x).flatten(2).transpose(1, 2).unflatten(2, (3, self.heads, self.dim))
        q, k, v = tokens.permute(2, 0, 3, 1, 4)
        q, k = self.position.fold(q, k, (height, width))
        # flash kernels want q, k and v of one width, a multiple of 8
        padded_width = -(-q.shape[3] // 8) * 8
        # the CPU's bfloat16 kernel is several times slower on maps of tens of pixels
        dtype = torch.float32 if v.is_cpu and v.dtype == torch.bfloat16 else v.dtype
        q, k, values = (_padded(heads, padded_width).to(dtype) for heads in (q, k, v))
        with torch.autocast("cpu", enabled=False):
            # the scale is that of a head as it was: neither widening nor padding changes it
            attended = nn.functional.scaled_dot_product_attention(
                q, k, values, scale=self.dim**-0.5
            )
        tokens = attended[..., : self.dim].to(v.dtype).transpose(1, 2)
        # a channels_last map, like the shortcut's to which the block adds it
        return tokens.reshape(b, height, width, -1).permute(0, 3, 1, 2)


def _padded(
    heads: Float[Tensor, "b heads tokens d"], width: int
) -> Float[Tensor, "b heads tokens d2"]:
    """Append channels that are zero, to ``width``."""
    return nn.functional.pad(heads, (0, width - heads.shape[3]))


def head_width(outputs: int) -> int:
    """Channels of an attention head in the paper's proportion: ``outputs`` / 16, 128 at 2048.

    The nearest multiple of 8, which attention kernels and the sines and cosines of a position want,
    and at least 8.

    Args:
        outputs: channels of the block's output.
    """
    return max(8 * round(outputs / 128), 8)


class AttentionBlock(nn.Module):
    """Convolution, attention, convolution, residual, ReLU (Fig. 3).

    Args:
        inputs: channels of the input map.
        outputs: channels of the output map; the convolution before the attention has a quarter.
        map_size: height and width of the input map.
        downsample: halve the map, behind the attention and in the shortcut, which is then a 3×3
            convolution of stride 2; odd sizes round up. Without it the input must have as many
            channels as the output.
        heads: number of attention heads.
        dim: channels of each head; None: ``head_width(outputs)``.
        position: encoding of the positions.
        zero_gamma: the last batch norm's γ starts at 0, so that the block starts as its shortcut;
            the released code resets it to 1.

    Source: Fig. 3, Sec. 3.2, after BoTNet's block; released code.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        map_size: tuple[int, int],
        downsample: bool = False,
        heads: int = 4,
        dim: int | None = None,
        position: type[Position] = RelativePosition,
        zero_gamma: bool = True,
    ) -> None:
        super().__init__()
        dim = dim or head_width(outputs)
        quarter = max(outputs // 4, 1)
        attended = heads * dim
        last_norm = nn.BatchNorm2d(outputs)
        self.reduce = Conv2dNormActivation(inputs, quarter, 1)
        self.attention = SelfAttention2d(
            quarter,
            map_size=map_size,
            heads=heads,
            dim=dim,
            position=position,
        )
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if downsample else nn.Identity()
        self.expand = nn.Sequential(
            nn.BatchNorm2d(attended),
            nn.ReLU(inplace=True),
            nn.Conv2d(attended, outputs, 1, bias=False),
            last_norm,
        )
        self.shortcut: nn.Module = nn.Identity()
        if downsample:
            self.shortcut = Conv2dNormActivation(inputs, outputs, 3, stride=2)
        nn.init.constant_(last_norm.weight, 0 if zero_gamma else 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Map to map."""
        attended = self.pool(self.attention(self.reduce(x)))
        return torch.relu(self.expand(attended) + self.shortcut(x))


class Transformer(nn.Module):
    """Attention blocks on a feature map, then average pooling (Sec. 3.2).

    The first block halves the map. ResNet-50's at 224 px is
    ``Transformer(1024, 2048, map_size=(14, 14))``: from 14 × 14 to 7 × 7 pixels, with four heads of
    128 channels.

    Args:
        inputs: channels of the encoder's tapped map, 1024 at ResNet-50's layer3.
        outputs: channels of every block's output and of the features; those of the encoder's
            pooled features, 2048 for ResNet-50.
        map_size: height and width of the tapped map in training, 14 × 14 for ResNet-50's layer3 at
            224 px; maps of other sizes are taken too.
        blocks: number of attention blocks, at least 1; 5 are best (Table 7).
        heads: attention heads of each block.
        dim: channels of each head; None keeps the paper's proportion, see ``head_width``.
        position: encoding of the positions: learnable relative ones are best (Table 8).
        zero_gamma: every block starts as its shortcut; the released code resets this.

    Raises:
        CareError: There is no block.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        map_size: tuple[int, int],
        blocks: int = 5,
        heads: int = 4,
        dim: int | None = None,
        position: type[Position] = RelativePosition,
        zero_gamma: bool = True,
    ) -> None:
        super().__init__()
        self.features = outputs
        self.heads = heads
        self.dim = dim or head_width(outputs)

        def block(channels: int, size: tuple[int, int], *, downsample: bool) -> AttentionBlock:
            return AttentionBlock(
                channels,
                outputs,
                map_size=size,
                downsample=downsample,
                heads=heads,
                dim=self.dim,
                position=position,
                zero_gamma=zero_gamma,
            )

        if blocks < 1:
            raise CareError(f"wanted at least 1 attention block, got {blocks}")
        height, width = map_size
        halved = (-(-height // 2), -(-width // 2))
        first = block(inputs, map_size, downsample=True)
        others = [block(outputs, halved, downsample=False) for _ in range(blocks - 1)]
        self.blocks = nn.Sequential(first, *others)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Attend, then average over the pixels: [b, inputs, h, w] → [b, outputs]."""
        return torch.mean(self.blocks(maps), (2, 3))
