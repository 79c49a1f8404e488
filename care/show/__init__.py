"""For looking rather than reading: attention maps, the report, and results beside the paper's."""

from care.show.maps import Share, attention_map, attention_share, overlay, sheet
from care.show.report import as_csv, as_markdown, compared, gather, report
from care.show.verdict import Difference, differences, verdict

__all__ = [
    "Difference",
    "Share",
    "as_csv",
    "as_markdown",
    "attention_map",
    "attention_share",
    "compared",
    "differences",
    "gather",
    "overlay",
    "report",
    "sheet",
    "verdict",
]
