"""For looking rather than reading: attention maps and the report."""

from care.show.maps import Share, attention_map, attention_share, overlay, sheet
from care.show.report import report

__all__ = ["Share", "attention_map", "attention_share", "overlay", "report", "sheet"]
