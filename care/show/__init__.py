"""For looking: attention maps, a page about a run, results beside the paper's.

What is here reads what others have written, a run's files and rows of results, and computes no
result of its own: where an encoder looks, ``care.evaluate`` computes. A page, a terminal and a
file say the same, since their words and figures come from the rows alone; ``tests/care/show``
holds it.
"""

from care.evaluate.attention_maps import attention_map, class_map
from care.evaluate.transformer_maps import Attending, transformer_map
from care.show.comparison import Difference, differences
from care.show.export import as_csv, as_markdown
from care.show.maps import overlay, overlays, sheet
from care.show.neighbours import nearest_of_rows, neighbour_sheet
from care.show.paper import compared
from care.show.report import report
from care.show.results import gather
from care.show.verdict import verdict

__all__ = [
    "Attending",
    "Difference",
    "as_csv",
    "as_markdown",
    "attention_map",
    "class_map",
    "compared",
    "differences",
    "gather",
    "nearest_of_rows",
    "neighbour_sheet",
    "overlay",
    "overlays",
    "report",
    "sheet",
    "transformer_map",
    "verdict",
]
