"""What the images of a set are like: converted, without their content, or nearly constant."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from shards.errors import ShardError
from shards.samples import SampleFile

_FADED = 0.1  # of the converted images; where more are faded, the range is wrong
_FLAT = 0.1  # of the images looked at; where more are nearly constant, it is told


class PixelCounts(NamedTuple):
    """Counts of images of a shard or a set.

    Attributes:
        converted: how many the pixel rule made.
        faded: how many of these have few gray levels left of many values.
        looked_at: how many were looked at for what follows.
        flat: how many of these are nearly constant.
    """

    converted: int = 0
    faded: int = 0
    looked_at: int = 0
    flat: int = 0

    def plus(self, sample: SampleFile) -> "PixelCounts":
        """The counts with one more image."""
        return PixelCounts(
            self.converted + sample.is_converted,
            self.faded + sample.is_faded,
            self.looked_at + (sample.is_flat is not None),
            self.flat + (sample.is_flat is True),
        )


class PixelReport(NamedTuple):
    """What an index says of the pixels of its set.

    Attributes:
        rule: the pixel rule as JSON, see ``PixelRule.document``.
        counts: of its images.
    """

    rule: Mapping[str, Any]
    counts: PixelCounts

    def document(self) -> dict[str, Any]:
        """The report as JSON, {} of images that are as they were and show something."""
        if not (self.rule or self.counts.converted or self.counts.flat):
            return {}
        return {"rule": dict(self.rule), **self.counts._asdict()}


def parse_report(document: Mapping[str, Any]) -> PixelReport:
    """The report that ``document`` gave; of {} that of ordinary images.

    Raises:
        TypeError: It is none.
    """
    counts = {name: value for name, value in document.items() if name != "rule"}
    return PixelReport(document.get("rule", {}), PixelCounts(**counts))


def differ(first: PixelReport, second: PixelReport) -> bool:
    """Whether equal values have other gray levels in two sets, where both have such values."""
    return any(
        first.rule[name] != second.rule[name] for name in first.rule.keys() & second.rule.keys()
    )


def total(parts: Iterable[PixelCounts]) -> PixelCounts:
    """The counts of a set from those of its shards."""
    sums = [sum(column) for column in zip(*parts, strict=True)]
    return PixelCounts(*sums)


def refuse_faded(counts: PixelCounts, dest: object) -> None:
    """Stop a build whose images have lost their content.

    Args:
        counts: of its images.
        dest: the set's folder, for the message.

    Raises:
        ShardError: More than a tenth of the converted images have few gray levels left.
    """
    if counts.faded > _FADED * counts.converted:
        raise ShardError(
            f"{counts.faded:,} of {counts.converted:,} images of more than 8 bits would have fewer "
            "than 16 of 256 gray levels left: their values fill a small part of the range. Give "
            "the range of the images by --range LOW,HIGH, or --range 1%,99% for that of each, and "
            f"another DEST than {dest}, or remove it"
        )


def warnings(report: PixelReport) -> list[str]:
    """What a user has to know of the images of a set before training, one line each."""
    counts = report.counts
    lines = list[str]()
    if counts.faded:
        lines.append(
            f"{counts.faded:,} of {counts.converted:,} converted images have fewer than 16 of 256 "
            "gray levels left of many values; see --range"
        )
    if counts.flat > _FLAT * counts.looked_at:
        lines.append(
            f"{counts.flat:,} of {counts.looked_at:,} images that were looked at are nearly "
            "constant (most pixels within 8 of 256 gray levels): there is little to learn from "
            "them"
        )
    return lines
