"""Sizes of images as ``shards.image_size`` has them, where the command line finds them, too.

They are no part of the method: whoever types a size waits neither for torch nor for networks.
"""

from shards.image_size import LEAST_SIDE, ImageSize, Sides, image_size, sides, typed_size

__all__ = ["LEAST_SIDE", "ImageSize", "Sides", "image_size", "sides", "typed_size"]
