"""Random views: the distribution of one, and its numbers for an image; no pixels here.

A view's numbers are a pure function of (seed, epoch, sample, view), so no generator has a state to
save.
"""

from typing import Any, NamedTuple
import numpy as np
from jaxtyping import Float, Float32
from care.train.operations import NO_OPERATIONS, OPERATION_NUMBERS, Augment, draw_operations
from shards.image_size import ImageSize

TRIES = 10  # crops that are drawn until one fits into the image
# uniform numbers of a view: areas, shapes and place of the crop; order and factors of the jitter;
# σ of the blur; and whether there are jitter, blur, gray, a flip, solarisation
COUNTS = (TRIES, TRIES, 2, 4, 4, 1, 5)
# patches of a jigsaw: of each cell of three by three
PATCHES = 9
NO_PUZZLE = np.empty((0, 3))
NO_JITTER = (-1, -1, -1, -1)
# fields of a view that runs of version 0.1 have recorded, without names
FIELDS_OF_0_1 = 9
# the counter's last word keeps views apart from what else is drawn by a seed
STREAM = 1 << 62


class View(NamedTuple):
    """The distribution of one view, by default of the paper's first one.

    Source: Sec. 4.1; the numbers are those of the released code.

    Attributes:
        scale: share of the image's area in the crop, least and most.
        ratio: width over height of the crop, least and most, as a factor of the view's own: what
            is to be seen of a view of 96x192 px is as little distorted as in square ones.
        jitter: largest change of brightness, contrast and saturation, as a factor 1 ± x, and of
            hue, as a share of the circle.
        jitter_p: probability of the jitter.
        blur: standard deviation of the Gaussian blur, pixels of the view, least and most.
        blur_p: probability of the blur.
        gray_p: probability of losing the colours.
        flip_p: probability of left and right being exchanged.
        solarize_p: probability of bright values being inverted.
        size: of the view, pixels, a side or a text such as 96x192; None: that of the training's
            views.
        patch: side of the patches that are seen of the view, pixels: one of each of three by three
            cells, in a random order; None: the view is seen itself.
        augment: what follows the blur: InfoMin's "rand-augment", PIRL's "photometric" change, or
            nothing (``care.train.operations``).
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: float = 0.8
    blur: tuple[float, float] = (0.1, 2.0)
    blur_p: float = 1.0
    gray_p: float = 0.2
    flip_p: float = 0.5
    solarize_p: float = 0.0
    size: ImageSize | None = None
    patch: int | None = None
    augment: Augment | None = None

    def draw(self, seed: int, epoch: int, sample: int, view: int) -> "ViewParameters":
        """Draw the numbers of one view of one sample in one epoch.

        Args:
            seed: of the training.
            epoch: pass over the set.
            sample: number of the image in the set.
            view: number of the view among those of the image.

        Returns:
            A pure function of the arguments. One probability can change without moving the other
            numbers, because every number is drawn whether it is used or not.
        """
        # raw Philox words: numpy promises their bits for ever, those of its distributions not
        key = np.array([seed % 2**64, epoch], np.uint64)
        counter = np.array([0, view, sample, STREAM], np.uint64)
        # more words are drawn behind those of every view, which stay what they are
        count_of_puzzle = 0 if self.patch is None else 3 * PATCHES
        count_of_operations = 0 if self.augment is None else OPERATION_NUMBERS
        counts = (*COUNTS, count_of_puzzle, count_of_operations)
        words = np.random.Philox(key=key, counter=counter).random_raw(sum(counts))
        uniform = (words >> np.uint64(11)) * 2.0**-53
        parts = np.split(uniform, np.cumsum(counts[:-1]))
        of_areas, of_shapes, place, of_order, of_factors, of_sigma, of_decisions = parts[:-2]
        of_puzzle, of_operations = parts[-2:]

        areas = self.scale[0] + of_areas * (self.scale[1] - self.scale[0])
        ratios = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** of_shapes
        factors = 1 + (2 * of_factors - 1) * self.jitter
        factors[3] -= 1  # hue is shifted
        sigma = self.blur[0] + of_sigma[0] * (self.blur[1] - self.blur[0])

        chances = (self.jitter_p, self.blur_p, self.gray_p, self.flip_p, self.solarize_p)
        is_jittered, is_blurred, is_gray, is_flipped, is_solarized = of_decisions < chances
        order = np.argsort(of_order) if is_jittered else NO_JITTER
        colour = (*order, *factors, sigma * is_blurred, is_gray, is_solarized)
        colour_numbers = np.asarray(colour, dtype=np.float32)
        puzzle = NO_PUZZLE if self.patch is None else _puzzle(of_puzzle)
        operations = NO_OPERATIONS
        if self.augment is not None:
            operations = draw_operations(self.augment, of_operations)
        return ViewParameters(
            areas, ratios, place, bool(is_flipped), colour_numbers, puzzle, operations
        )

    def crop_size(self, size: ImageSize) -> ImageSize:
        """Size of the crop, pixels, in a training with views of ``size``."""
        return size if self.size is None else self.size

    def seen_size(self, size: ImageSize) -> ImageSize:
        """Size of what the encoder gets, a crop or its patches, pixels."""
        return self.crop_size(size) if self.patch is None else self.patch

    def settings(self) -> list[Any]:
        """Fields as a run records them: those that version 0.1 had, then others that are set."""
        recorded: list[Any] = list(self[:FIELDS_OF_0_1])
        for name in self._fields[FIELDS_OF_0_1:]:
            if getattr(self, name) != self._field_defaults[name]:
                recorded.append({name: getattr(self, name)})
        return recorded


# the paper's two
VIEWS = (View(), View(blur_p=0.1, solarize_p=0.2))


def multi_crop(
    view: View,
    *,
    small_size: ImageSize = 96,
    count: int = 6,
    scale: tuple[float, float] = (0.14, 1.0),
    small_scale: tuple[float, float] = (0.05, 0.14),
) -> tuple[View, ...]:
    """Make two large views and some small ones of equal colours, SwAV's by default.

    Args:
        view: distribution of the colours.
        small_size: of the small views, pixels; 96 beside 224.
        count: number of the small views.
        scale: share of the image's area in a large view, least and most.
        small_scale: that in a small view.

    Source: Caron et al. 2020, Sec. 3.2 and App. A.
    """
    large = view._replace(scale=scale)
    small = view._replace(scale=small_scale, size=small_size)
    return (large, large, *[small] * count)


def _puzzle(uniform: Float[np.ndarray, "27"]) -> Float[np.ndarray, "9 3"]:
    """The cells in the order in which they are seen, and where in each the patch lies."""
    of_order, of_places = np.split(uniform, [PATCHES])
    return np.column_stack((np.argsort(of_order), of_places.reshape(PATCHES, 2)))


class ViewParameters(NamedTuple):
    """The random numbers of one view of one image.

    Attributes:
        areas: share of the image's area in the crop, one for each of ten tries.
        ratios: width over height of the crop, one for each try.
        place: where the crop lies in what it leaves, from the left and from the top, in 0…1.
        flip: whether left and right are exchanged.
        colour: the places at which the jitter's four operations are applied (−1: not), in the
            order brightness, contrast, saturation, hue the factors of the first three and the shift
            of the last, the blur's standard deviation in pixels (0: none), whether it is gray,
            whether it is solarized.
        puzzle: the cells of three by three, from 0 on, in the order in which they are seen; of each
            where in it the patch lies, from the left and from the top, in 0…1. Of a view that is
            seen itself there are none.
        operations: what follows the blur, as ``draw_operations`` gives it.
    """

    areas: Float[np.ndarray, "10"]
    ratios: Float[np.ndarray, "10"]
    place: Float[np.ndarray, "2"]
    flip: bool
    colour: Float32[np.ndarray, "11"]
    puzzle: Float[np.ndarray, "n 3"] = NO_PUZZLE
    operations: Float32[np.ndarray, "n 2"] = NO_OPERATIONS

    def box(self, width: int, height: int, aspect: float = 1) -> tuple[int, int, int, int]:
        """Place the crop in an image: by the first try that fits, else in the centre.

        That is torchvision's rule where the view is square. The shapes of crops are drawn around
        that of the view, so that the resized crop is stretched no more than in a square view.

        Args:
            width: of the image, pixels.
            height: of the image, pixels.
            aspect: of the view, its width over its height.

        Returns:
            Left, top, right and bottom, pixels.
        """
        for area, ratio in zip(self.areas * width * height, self.ratios * aspect, strict=True):
            crop_width = round((area * ratio) ** 0.5)
            crop_height = round((area / ratio) ** 0.5)
            if 0 < crop_width <= width and 0 < crop_height <= height:
                x_min = int(self.place[0] * (width - crop_width + 1))
                y_min = int(self.place[1] * (height - crop_height + 1))
                return x_min, y_min, x_min + crop_width, y_min + crop_height
        crop_width = min(width, round(height * aspect * 4 / 3))
        crop_height = min(height, round(width / aspect * 4 / 3))
        x_min = (width - crop_width) // 2
        y_min = (height - crop_height) // 2
        return x_min, y_min, x_min + crop_width, y_min + crop_height
