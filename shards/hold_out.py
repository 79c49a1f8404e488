"""A part of a source of which some images are held out to evaluate on."""

from typing import Literal, NamedTuple


class HoldOut(NamedTuple):
    """A part of a source of which a share is held out.

    Attributes:
        part: "val" is what is held out, "train" all else.
        val_share: share of every class, above 0 and below 1.
    """

    part: Literal["train", "val"]
    val_share: float

    def __str__(self) -> str:
        """The part in words."""
        share = f"{self.val_share:.4g}"
        if self.part == "val":
            return f"val: {share} of every class"
        return f"train: all but {share} of every class"
