"""For looking rather than reading: attention maps and the report."""

from care.show.maps import attention_map, overlay, sheet
from care.show.report import report

__all__ = ["attention_map", "overlay", "report", "sheet"]
