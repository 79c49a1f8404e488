"""Vision transformers as encoders, by MoCo v3's rules: what the paper's Table 1 compares with.

The blocks are timm's. The rules are that the projection of the patches stays what it was drawn as,
positions are fixed sines and cosines, and the features are the class token behind the last norm.
"""

import math
from collections.abc import Callable
from functools import partial
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.encoded import Encoded, refuse_bands
from care.errors import CareError
from care.sines import sin_cos_table
from shards.image_size import ImageSize, sides

# the name of the one map
TOKENS = "tokens"


class ViTEncoder(nn.Module):
    """A vision transformer without classifier.

    Args:
        name: of the network in ``VITS``.
        patch: side of a patch, pixels.
        width: channels of a token, a multiple of 4 and of ``heads``.
        depth: blocks.
        heads: attention heads of a block.

    Attributes:
        model: timm's network, which knows no positions.
        features: channels of the class token.
        grid: patches along a side of the images of its pre-training, a buffer. On images of another
            size a patch has the position that its middle would have there.
        size: of the images that it is trained on, pixels.
        assumed: what is supposed of it that its weights do not tell; "" of our own.

    Raises:
        CareError: timm is not installed.

    Source: Chen, Xie and He 2021, An empirical study of training self-supervised ViTs; its code.
    """

    grid: Tensor

    def __init__(
        self, *, name: str = "", patch: int = 16, width: int, depth: int = 12, heads: int = 12
    ) -> None:
        super().__init__()
        try:
            from timm.models.vision_transformer import VisionTransformer
        except ImportError:
            raise CareError("timm is not installed; pip install 'care-ssl[timm]'") from None
        self.model = VisionTransformer(
            patch_size=patch,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            pos_embed="none",
            dynamic_img_size=True,
            # Xavier's for queries, keys and values each, and for all other layers
            weight_init="moco",
        )
        projection = self.model.patch_embed.proj
        bound = math.sqrt(6 / (3 * patch**2 + width))
        nn.init.uniform_(projection.weight, -bound, bound)
        nn.init.zeros_(projection.bias)
        projection.requires_grad_(False)
        self.name = name
        self.patch = patch
        self.features = width
        self.size: ImageSize = 224
        self.assumed = ""
        self.input: nn.Module = nn.Identity()  # or what others normalise pixels by
        self.register_buffer("grid", torch.tensor(self.size // patch))

    def fit(self, size: ImageSize) -> None:
        """Have the positions of images of a size: 0, 1, 2, … along each side.

        Args:
            size: side of the images, pixels.

        Raises:
            CareError: They are not square.
        """
        self.grid.fill_(self.grid_of(size))

    def grid_of(self, size: ImageSize) -> int:
        """Patches along a side of images.

        Args:
            size: side of the images, pixels.

        Raises:
            CareError: They are not square.
        """
        height, width = sides(size)
        if height != width:
            raise CareError(
                f"{self.name or 'a vision transformer'} has as many positions along either side;"
                f" wanted square views, such as {min(height, width)} px, got {size}"
            )
        return height // self.patch

    def positions(self, rows: int, columns: int) -> Float[Tensor, "n d"]:
        """The positions of the patches of an image, row by row, in float32.

        Args:
            rows: of patches.
            columns: of patches.
        """
        row, column = (
            (torch.arange(count, device=self.grid.device) + 0.5) * (self.grid / count) - 0.5
            for count in (rows, columns)
        )
        return sin_cos_table(row, column, self.features)

    def maps(self, images: Float[Tensor, "b _ h w"]) -> dict[str, Float[Tensor, "b c h2 w2"]]:
        """Compute the one map that there is: the patches' tokens behind the last norm."""
        return {TOKENS: self(images).map}

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Encoded:
        """Encode images normalised by ImageNet's mean and standard deviation.

        Raises:
            CareError: A side is no multiple of the patches'.
        """
        refuse_bands(images.shape[1], self)
        height, width = images.shape[2:]
        if height % self.patch or width % self.patch:
            raise CareError(
                f"wanted images whose sides are multiples of {self.patch} px for "
                f"{self.name or 'this vision transformer'}, got {height}×{width}; give another size"
            )
        patches = self.model.patch_embed(self.input(images))
        rows, columns = patches.shape[1:3]
        tokens = patches.flatten(1, 2) + self.positions(rows, columns).to(patches.dtype)
        class_token = self.model.get_parameter("cls_token").expand(len(tokens), -1, -1)
        with_class = torch.cat((class_token, tokens), 1)
        out = self.model.norm(self.model.blocks(with_class))
        tokens_map = out[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return Encoded(tokens_map, out[:, 0])

    def position_table(self) -> Float[Tensor, "1 n d"]:
        """The positions of its ``grid``, with zeros for the class token: timm's ``pos_embed``."""
        side = int(self.grid)
        table = self.positions(side, side)
        return torch.cat((torch.zeros_like(table[:1]), table))[None]


# what --encoder takes and a checkpoint records, beside ``care.encoders.ENCODERS``
VITS: dict[str, Callable[[], ViTEncoder]] = {
    "vit-s16": partial(ViTEncoder, name="vit-s16", width=384),
    "vit-b16": partial(ViTEncoder, name="vit-b16", width=768),
    # for images of 48 to 96 px
    "vit-s8": partial(ViTEncoder, name="vit-s8", width=384, patch=8),
    # for trials
    "vit-tiny8": partial(ViTEncoder, name="vit-tiny8", width=64, patch=8, depth=2, heads=4),
}


def patch_side(encoder: str) -> int:
    """The side of the patches of which an encoder's images consist, pixels; 1 of any CNN.

    Args:
        encoder: its name.

    Raises:
        CareError: It is a vision transformer, and timm is not installed.
    """
    if encoder not in VITS:
        return 1
    with torch.device("meta"):
        return VITS[encoder]().patch
