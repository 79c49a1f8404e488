"""How an image becomes what an encoder takes, in words and numbers that any library can follow."""

from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor
from care.encoded import InputNormalisation
from care.encoders import Encoder
from care.train.photometrics import MEAN, STD
from shards.image_size import Sides, sides

FILE = "preprocessing.json"


class Preprocessing(NamedTuple):
    """The test transform of every evaluation: resize (bilinear), cut the centre out, normalise.

    Attributes:
        resized: what the image is resized to cover before the cut, pixels; of a square crop that is
            its short side.
        size: of the crop, pixels.
        mean: of red, green and blue in 0…1.
        std: their deviation.
    """

    resized: Sides
    size: Sides
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def is_square(self) -> bool:
        """Whether the crop is."""
        return self.size.height == self.size.width

    def normalised(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """What the network takes of crops whose pixels are from 0 to 1."""
        mean = pixels.new_tensor(self.mean)[:, None, None]
        std = pixels.new_tensor(self.std)[:, None, None]
        return (pixels - mean) / std

    def facts(self) -> dict[str, object]:
        """All of it for a JSON file; sizes are heights and widths."""
        return {
            "channels": "RGB",
            "resize_to_cover": [*self.resized],
            "interpolation": "bilinear",
            "centre_crop": [*self.size],
            "scale": "1/255",
            "mean": [*self.mean],
            "std": [*self.std],
        }


def preprocessing_of(encoder: Encoder) -> Preprocessing:
    """What an encoder expects without the first step that it has here of others' pixels.

    Args:
        encoder: any; its size is that of its training.
    """
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    if isinstance(encoder.input, InputNormalisation):
        scale = encoder.input.scale.flatten().double().cpu()
        shift = encoder.input.shift.flatten().double().cpu()
        their_std = torch.tensor(STD, dtype=torch.float64) / scale
        their_mean = torch.tensor(MEAN, dtype=torch.float64) - shift * their_std
        mean, std = _rounded(their_mean), _rounded(their_std)
    height, width = sides(encoder.size)
    # as ``care.evaluate.images.centre_crop`` has it
    resized = Sides(round(height * 256 / 224), round(width * 256 / 224))
    return Preprocessing(resized, Sides(height, width), mean, std)


def _rounded(numbers: Tensor) -> tuple[float, ...]:
    """Numbers as a user gave them, which went through float32."""
    return tuple(round(number, 6) for number in numbers.tolist())
