"""The images of a list by number: files, or samples of a shard set."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from PIL import Image
from shards import images, storage
from shards.contents import identity_of
from shards.errors import ShardError
from shards.pixel_report import PixelReport
from shards.pixel_rules import decide_rule
from shards.pixels import PixelRule
from shards.progress import warn
from shards.reader import ShardSet
from shards.sources.candidates import Candidate


class ListedImages(Protocol):
    """Images by number, and what tells them from others."""

    @property
    def contents(self) -> Sequence[int | str]:
        """What each of them is, see ``shards.contents.identity_of``."""

    @property
    def pixels(self) -> PixelReport:
        """How they became 8 bits of red, green and blue."""

    def image(self, number: int) -> Image.Image:
        """Decode one: RGB, upright."""


class ListedFiles(NamedTuple):
    """Image files by number.

    Attributes:
        paths: paths or URLs of the files.
        contents: what each of them is.
        rule: how they become 8 bits and three channels.
    """

    paths: Sequence[str]
    contents: Sequence[int | str]
    rule: PixelRule

    @property
    def pixels(self) -> PixelReport:
        """What the rule says."""
        return PixelReport(self.rule.document())

    def image(self, number: int) -> Image.Image:
        """Decode a file.

        Raises:
            ShardError: It cannot be read, or does not decode.
        """
        path = self.paths[number]
        try:
            return images.decode(storage.read_bytes(path), self.rule)
        except (OSError, ShardError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ShardError(f"cannot read {path}: {reason}") from error


class ListedSamples(NamedTuple):
    """Samples of a shard set by number.

    Attributes:
        data: the set.
        rows: their numbers in it.
    """

    data: ShardSet
    rows: Sequence[int]

    @property
    def contents(self) -> Sequence[int]:
        """The CRC-32 of each sample."""
        checksums: list[int] = self.data.index.samples["crc32"][list(self.rows)].tolist()
        return checksums

    @property
    def pixels(self) -> PixelReport:
        """What the set says of its own."""
        return self.data.index.pixels

    def image(self, number: int) -> Image.Image:
        """Decode a sample.

        Raises:
            ShardError: It cannot be read, is damaged, or does not decode.
        """
        return self.data.image(self.rows[number])


def listed_files(files: Sequence[Candidate]) -> ListedFiles:
    """Take files as images, by the pixel rule that a build would decide for them.

    What a user might not expect of that rule is said.

    Args:
        files: in the order of their list.
    """
    rule, notes = decide_rule(sorted(files, key=_path_of))
    for note in notes:
        warn(note)
    return ListedFiles([file.path for file in files], identity_of(files), rule)


def _path_of(file: Candidate) -> str:
    return file.path
