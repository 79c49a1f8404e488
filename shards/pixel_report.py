"""What the images of a set are like: converted, without content, nearly constant, or elongated."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from shards.errors import ShardError
from shards.samples import SampleFile

_FADED = 0.1  # of the converted images; where more are faded, the range is wrong
_TOLD = 0.1  # of the images looked at; where more are nearly constant, or elongated, it is told


class PixelCounts(NamedTuple):
    """Counts of images of a shard or a set.

    Attributes:
        converted: how many the pixel rule made.
        faded: how many of these have few gray levels left of many values.
        looked_at: how many were looked at for what follows.
        flat: how many of these are nearly constant.
        elongated: how many of these are more than four times as long as wide.
    """

    converted: int = 0
    faded: int = 0
    looked_at: int = 0
    flat: int = 0
    elongated: int = 0

    def plus(self, sample: SampleFile) -> "PixelCounts":
        """The counts with one more image."""
        return PixelCounts(
            self.converted + sample.is_converted,
            self.faded + sample.is_faded,
            self.looked_at + (sample.is_flat is not None),
            self.flat + (sample.is_flat is True),
            self.elongated + sample.is_elongated,
        )


class PixelReport(NamedTuple):
    """What an index says of the pixels of its set.

    Attributes:
        rule: the pixel rule as JSON, see ``PixelRule.document``.
        counts: of its images.
    """

    rule: Mapping[str, Any]
    counts: PixelCounts = PixelCounts()

    def document(self) -> dict[str, Any]:
        """The report as JSON, {} of images that are as they were and of no remarkable kind."""
        counts = self.counts
        if not (self.rule or counts.converted or counts.flat or counts.elongated):
            return {}
        return {"rule": dict(self.rule), **self.counts._asdict()}


def parse_report(document: Mapping[str, Any]) -> PixelReport:
    """The report that ``document`` gave; of {} that of ordinary images.

    Raises:
        TypeError: It is none.
    """
    counts = {name: value for name, value in document.items() if name != "rule"}
    return PixelReport(document.get("rule", {}), PixelCounts(**counts))


def differences(
    first: PixelReport, second: PixelReport, *, names: tuple[str, str] = ("train", "val")
) -> list[str]:
    """Where the images of two sets that belong together became other pixels, one line each.

    Ranges differ where both sets have values of a kind and equal ones have other gray levels.

    Args:
        first: of one set.
        second: of the other one.
        names: what the sets are called.
    """
    lines = list[str]()
    if _ranges_differ(first, second):
        ranges = [_describe_range(report.rule) for report in (first, second)]
        lines.append(
            f"values of more than 8 bits became gray levels by other ranges in {names[0]} "
            f"({ranges[0]}) and {names[1]} ({ranges[1]}): build both with one --range"
        )
    bands = [report.rule.get("bands", []) for report in (first, second)]
    if bands[0] != bands[1]:
        texts = [",".join(map(str, of_set)) or "the first ones" for of_set in bands]
        lines.append(
            f"other bands became colours in {names[0]} ({texts[0]}) and {names[1]} ({texts[1]}): "
            "build both with one --bands"
        )
    elif not bands[0] and first.rule.get("alpha") != second.rule.get("alpha"):
        dropped, other = names if first.rule.get("alpha") else reversed(names)
        lines.append(
            f"a band that files call alpha was left out in {dropped}, and is transparency in "
            f"{other}: build both with one --alpha"
        )
    return lines


def _ranges_differ(first: PixelReport, second: PixelReport) -> bool:
    """Whether equal values of more than 8 bits have other gray levels in two sets."""
    ranges, other_ranges = (_ranges(report) for report in (first, second))
    if "percentiles" in {*ranges, *other_ranges}:
        return bool(ranges and other_ranges) and ranges != other_ranges
    common = ranges.keys() & other_ranges.keys()
    return any(ranges[kind] != other_ranges[kind] for kind in common)


def _ranges(report: PixelReport) -> dict[str, list[float]]:
    """The ranges of a rule by kind; none of percentiles that no image was made by."""
    rule = report.rule
    if "percentiles" in rule:
        return {"percentiles": rule["percentiles"]} if report.counts.converted else {}
    return {kind: rule[kind] for kind in ("integers", "floats") if kind in rule}


def _describe_range(rule: Mapping[str, Any]) -> str:
    """Which values become black and white, in words."""
    if "percentiles" in rule:
        low, high = rule["percentiles"]
        return f"{low:g} % to {high:g} % of each image's own"
    texts = dict[str, None]()
    for kind in ("integers", "floats"):
        if kind in rule:
            low, high = rule[kind]
            texts[f"{low:,.6g} to {high:,.6g}"] = None
    return ", ".join(texts)


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
    if counts.flat > _TOLD * counts.looked_at:
        lines.append(
            f"{counts.flat:,} of {counts.looked_at:,} images that were looked at are nearly "
            "constant (most pixels within 8 of 256 gray levels): there is little to learn from "
            "them"
        )
    if counts.elongated > _TOLD * counts.looked_at:
        lines.append(
            f"{counts.elongated:,} of {counts.looked_at:,} images that were looked at are more "
            "than four times as long as wide: half or more of the views of training are their "
            "centre, the rest is hardly seen; cut them into pieces first (docs/data.md)"
        )
    return lines
