"""The transformer of the T-stream: attention blocks on a map, each pixel a token (Sec. 3.2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation
from care.positions import NoPosition, RelativePosition


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over the pixels of a map: softmax((q·pᵀ + q·kᵀ)/√dim)·v (Eq. 2).

    Args:
        channels: of the input.
        map_size: (height, width) of the maps it is built for; others stretch the learned positions.
        heads: number of heads.
        dim: channels of each head.
        position: the term q·pᵀ.
    """

    def __init__(
        self,
        channels: int,
        *,
        map_size: tuple[int, int],
        heads: int = 4,
        dim: int = 128,
        position: type[NoPosition] = RelativePosition,
    ) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.qkv = nn.Conv2d(channels, 3 * heads * dim, 1, bias=False)
        self.position = position(dim, map_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b heads_dim h w"]:
        """Attend; the map may have another size than ``map_size``."""
        b, _, h, w = x.shape
        tokens = self.qkv(x).flatten(2).transpose(1, 2).unflatten(2, (3, self.heads, self.dim))
        q, k, v = tokens.permute(2, 0, 3, 1, 4)
        q, k = self.position.fold(q, k, (h, w))
        # flash kernels want q, k and v of one width, a multiple of 8; the widened q must not change the scale
        width = -(-q.shape[3] // 8) * 8
        # the CPU's bfloat16 kernel is several times slower on maps of tens of pixels
        dtype = torch.float32 if v.is_cpu and v.dtype == torch.bfloat16 else v.dtype
        q, k, values = (nn.functional.pad(t, (0, width - t.shape[3])).to(dtype) for t in (q, k, v))
        with torch.autocast("cpu", enabled=False):
            out = nn.functional.scaled_dot_product_attention(q, k, values, scale=self.dim**-0.5)
        pixels = out[..., : self.dim].to(v.dtype).transpose(1, 2).reshape(b, h, w, -1)
        # a channels_last map, like the shortcut's to which the block adds it
        return pixels.permute(0, 3, 1, 2)


def head_width(outputs: int) -> int:
    """Channels of an attention head in the paper's proportion: ``outputs`` / 16, 128 at 2048.

    The nearest multiple of 8, which attention kernels and the sines and cosines of a position want,
    and at least 8.
    """
    return max(8 * round(outputs / 128), 8)


class AttentionBlock(nn.Module):
    """Convolution, attention, convolution, residual, ReLU (Fig. 3).

    Args:
        inputs: channels of the input map.
        outputs: channels of the output map; the convolution before the attention has a quarter.
        map_size: (height, width) of the input map.
        downsample: halve the map, in the attention and in the shortcut.
        heads: number of attention heads.
        dim: channels of each head; None: ``head_width(outputs)``.
        position: encoding of the positions.
        zero_gamma: the last batch norm's γ starts at 0, so that the block starts as its shortcut;
            the released code resets it to 1.
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
        position: type[NoPosition] = RelativePosition,
        zero_gamma: bool = True,
    ) -> None:
        super().__init__()
        quarter, dim = max(outputs // 4, 1), dim or head_width(outputs)
        self.reduce = Conv2dNormActivation(inputs, quarter, 1)
        self.attention = SelfAttention2d(
            quarter,
            map_size=map_size,
            heads=heads,
            dim=dim,
            position=position,
        )
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if downsample else nn.Identity()
        attended, last = heads * dim, nn.BatchNorm2d(outputs)
        expand = nn.Conv2d(attended, outputs, 1, bias=False)
        self.expand = nn.Sequential(nn.BatchNorm2d(attended), nn.ReLU(inplace=True), expand, last)
        self.shortcut: nn.Module = nn.Identity()
        if downsample:
            self.shortcut = Conv2dNormActivation(inputs, outputs, 3, stride=2)
        nn.init.constant_(last.weight, 0 if zero_gamma else 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Map to map."""
        return torch.relu(self.expand(self.pool(self.attention(self.reduce(x)))) + self.shortcut(x))


class Transformer(nn.Module):
    """Attention blocks on a feature map, the first halving it, then average pooling (Sec. 3.2).

    ResNet-50's at 224 px: ``Transformer(1024, 2048, map_size=(14, 14))``, four heads of 128.

    Args:
        inputs: channels of the encoder's tapped map, 1024 at ResNet-50's layer3.
        outputs: channels of every block's output, those of the encoder's pooled features.
        map_size: (height, width) of the tapped map, 14 × 14 for ResNet-50's layer3 at 224 px.
        blocks: number of attention blocks; 5 are best (Table 7).
        heads: attention heads of each block.
        dim: channels of each head; None keeps the paper's proportion, see ``head_width``.
        position: encoding of the positions: learnable relative ones are best (Table 8).
        zero_gamma: every block starts as its shortcut; the released code resets this.
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
        position: type[NoPosition] = RelativePosition,
        zero_gamma: bool = True,
    ) -> None:
        super().__init__()
        self.features, self.heads, self.dim = outputs, heads, dim or head_width(outputs)

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

        halved = (-(-map_size[0] // 2), -(-map_size[1] // 2))
        rest = (block(outputs, halved, downsample=False) for _ in range(blocks - 1))
        self.blocks = nn.Sequential(block(inputs, map_size, downsample=True), *rest)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pooled features [b, outputs] of maps [b, inputs, h, w]."""
        return torch.mean(self.blocks(maps), (2, 3))
