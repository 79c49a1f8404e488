"""The sizes of images as a list writes them, and as their files have them."""

import io
from pathlib import Path
from typing import Any
from shards import images, storage
from shards.counted import images_that
from shards.rejects import RejectError
from shards.sources.annotations import finite_numbers

# bytes of an image that hold its size and EXIF, but for large thumbnails and profiles
_HEADER = 1 << 17


class OtherSizeError(Exception):
    """Raised for an image that has another size than its list says."""


def annotated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """A size that a list has of an image.

    Args:
        width: as it is written.
        height: as it is written.

    Returns:
        Width and height in pixels, or None if it is none.
    """
    numbers = finite_numbers((width, height))
    if not numbers or min(numbers) < 1:
        return None
    return int(numbers[0]), int(numbers[1])


def upright_size(file: Path) -> tuple[int, int] | None:
    """The size of the upright image in a file, by its header.

    Args:
        file: path or URL of the file.

    Returns:
        Width and height in pixels, or None where no image can be read, which a build tells.
    """
    try:
        if not storage.is_remote(file):
            return images.upright_size(file)
        return _remote_size(file)
    except RejectError:
        return None
    except OSError as error:
        storage.refuse_disk_error(error, file)
        return None


def _remote_size(file: Path) -> tuple[int, int]:
    """The upright size of an image in an object store, of which the beginning is read first."""
    try:
        return images.upright_size(io.BytesIO(storage.read_bytes(file, 0, _HEADER)))
    except (OSError, RejectError):
        return images.upright_size(io.BytesIO(storage.read_bytes(file)))


class SizeCheck:
    """Compares the sizes of a list with those of the files, and remembers what differs.

    Boxes of another size would lie elsewhere on the image. EXIF turns most such images: the list
    has the size as it is stored, and everything here sees the upright image.
    """

    def __init__(self) -> None:
        self.differing = list[str]()

    def size(self, file: Path, written: tuple[int, int] | None) -> tuple[int, int] | None:
        """The size of an image.

        Args:
            file: path or URL of the file.
            written: its size as the list has it, None if there is none.

        Returns:
            The list's size or else the file's, None if there is neither.

        Raises:
            OtherSizeError: They differ.
        """
        size = upright_size(file)
        if written is not None and size is not None and size != written:
            turned = ", which EXIF turns" if size == written[::-1] else ""
            self.differing.append(
                f"{file.name} has {size[0]} × {size[1]} upright pixels{turned}, "
                f"its annotation says {written[0]} × {written[1]}"
            )
            raise OtherSizeError
        return written or size

    def notes(self) -> list[str]:
        """What is to be said of the images that differ."""
        if not self.differing:
            return []
        return [
            f"{images_that(len(self.differing), 'is', 'are')} left out, since boxes would lie "
            "elsewhere: "
            f"{self.differing[0]}; correct one of them"
        ]
