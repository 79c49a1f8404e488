"""For looking: attention maps, a page about a run, results beside the paper's.

What is here reads what others have written, a run's files and rows of results, and computes no
result of its own but where an encoder looks. A page, a terminal and a file say the same, since
their words and figures come from the rows alone; ``tests/care/show`` holds it.
"""

from care.show.comparison import Difference, differences
from care.show.export import as_csv, as_markdown
from care.show.maps import (
    AttentionShare,
    AttentionShares,
    attention_map,
    attention_share,
    attention_shares,
    overlay,
    sheet,
)
from care.show.paper import compared
from care.show.report import report
from care.show.results import gather
from care.show.verdict import verdict

__all__ = [
    "AttentionShare",
    "AttentionShares",
    "Difference",
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
