"""For looking rather than reading: attention maps, the report, and results beside the paper's."""

from care.show.export import as_csv, as_markdown
from care.show.maps import (
    Share,
    Shares,
    attention_map,
    attention_share,
    attention_shares,
    overlay,
    sheet,
)
from care.show.paper import compared
from care.show.report import report
from care.show.results import gather
from care.show.verdict import Difference, differences, verdict

__all__ = [
    "Difference",
    "Share",
    "Shares",
    "as_csv",
    "as_markdown",
    "attention_map",
    "attention_share",
    "attention_shares",
    "compared",
    "differences",
    "gather",
    "overlay",
    "report",
    "sheet",
    "verdict",
]
