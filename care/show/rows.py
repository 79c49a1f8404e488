"""An evaluation as a results.json has it, a row of JSON, and the value it is read into.

Rows are what others write and read, so whatever is not needed here stays in them. Whoever computes
with one reads it into a ``Result`` first.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# JSON
Row = dict[str, Any]
# a number, or whatever else a file has in its place: who computes with it looks first
Figure = Any
# names in a row, and how columns are headed; in the order of the columns. Per cent where it says so
MEASURES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "balanced": "balanced %",
    "best1": "best epoch's top-1 %",
    "map": "mAP %",
    "miou": "mIoU %",
    "pixels": "pixels %",
    "ap": "AP %",
    "ap50": "AP50 %",
    "ap75": "AP75 %",
    "mask_ap": "mask AP %",
    "mask_ap50": "mask AP50 %",
    "mask_ap75": "mask AP75 %",
    "inside": "inside %",
    "agreement": "agreement %",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "pointing": "pointing %",
    "jaccard": "Jaccard %",
    "corloc": "CorLoc %",
}
# of measures that no label decides
LABEL_FREE = ("agreement", "rankme", "lidar", "alignment", "uniformity")
# of these less is better
LOSSES = ("alignment", "uniformity")
# places behind the point in a table, where it is not one
PLACES = {"alignment": 3, "uniformity": 2}
# the first of these that a result has is what its resampled figures are of
HEADLINES = ("top1", "map", "miou", "ap", "inside", "pointing", "corloc")
FIGURES = tuple(dict.fromkeys((*MEASURES, *HEADLINES)))


@dataclass(frozen=True)
class Result:
    """An evaluation of an encoder.

    Attributes:
        task: what was judged.
        encoder: its name.
        measures: by name, of ``FIGURES`` those that there are.
        deviations: standard deviations of measures over the trials, where they are known.
        protocol: what was done, in words.
        source: who reports it; "" where it was measured here.
        file: where its row was found, below the folder that was looked through; else "".
        trials: evaluations whose mean the measures are.
        seed: of the evaluation; None where the row has none.
        settings: of the evaluation.
        chosen: names of the settings that the evaluation chose: they are part of its result.
        digests: of the data by the name of their part, and of the "encoder".
        resampled: the headline measure on resampled validation images, by draw.
        chance: what a map without preference would have, such as the objects' share of the pixels;
            None of tasks without maps.
    """

    task: str
    encoder: str
    measures: Mapping[str, Figure]
    deviations: Mapping[str, Figure]
    protocol: str
    source: str
    file: str
    trials: int
    seed: int | None
    settings: Mapping[str, object]
    chosen: Sequence[str]
    digests: Mapping[str, str]
    resampled: Sequence[Figure]
    chance: Figure | None

    @property
    def headline(self) -> str:
        """Name of the measure that stands for the result."""
        return next((name for name in HEADLINES if name in self.measures), HEADLINES[0])

    @property
    def is_score(self) -> bool:
        """Whether it says how good an encoder is at a task: what no label decides does not."""
        return not self.measures or not self.measures.keys() <= set(LABEL_FREE)


def read(rows: Iterable[Row]) -> list[Result]:
    """Read evaluations as a results.json has them.

    Args:
        rows: others' keys are left alone.

    Raises:
        KeyError: A row has no task or no encoder.
        TypeError: A row, or its settings, digests or choices, are something else.
        ValueError: As ``TypeError``.
    """
    return [_result(row) for row in rows]


def _result(row: Row) -> Result:
    """One row, read: what is null counts as missing, and a figure that is not finite, too."""
    measures = {name: row.get(name) for name in FIGURES}
    deviations = {name: row.get(f"{name}_std") for name in FIGURES}
    return Result(
        task=row["task"],
        encoder=row["encoder"],
        measures=_known(measures),
        deviations=_known(deviations),
        protocol=row.get("protocol") or "",
        source=row.get("source") or "",
        file=row.get("file") or "",
        trials=row.get("trials") or 1,
        seed=row.get("seed"),
        settings=dict(row.get("settings") or {}),
        chosen=tuple(row.get("chosen") or ()),
        digests=dict(row.get("digests") or {}),
        resampled=tuple(row.get("resampled") or ()),
        chance=row.get("chance", row.get("area")),
    )


def _known(figures: Mapping[str, Figure | None]) -> dict[str, Figure]:
    """The figures that there are: no nulls, and no NaN, which Python's JSON may hold."""
    return {name: figure for name, figure in figures.items() if not _is_missing(figure)}


def _is_missing(figure: Figure | None) -> bool:
    return figure is None or (isinstance(figure, float) and not math.isfinite(figure))
