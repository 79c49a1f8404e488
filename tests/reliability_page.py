"""Write the tables of docs/reliability.md anew: ``python -m tests.reliability_page``.

They stand between comments, and come from the JSON that ``tests.trust`` left in
docs/results/reliability. All else on the page is written by hand.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / "docs" / "results" / "reliability"
_OUTCOMES = ("detected", "harmless", "undetected")


def with_tables(page: str) -> str:
    """The page with the table of the figures that are kept."""
    figures = json.loads((FIGURES / "flips.json").read_text())
    block = f"<!-- flips -->\n\n{flips_table(figures)}\n\n<!-- end of flips -->"
    return re.sub(r"(?s)<!-- flips -->\n.*?<!-- end of flips -->", lambda _: block, page)


def flips_table(figures: dict[str, Any]) -> str:
    """What became of the bits of every kind of file, then of all, and the command."""
    rows = figures["kinds"]
    total = {name: sum(row[name] for row in rows.values()) for name in _OUTCOMES}
    lines = [f"| | {' | '.join(_OUTCOMES)} |", "|---|---|---|---|"]
    for kind, row in {**rows, "all": total}.items():
        lines.append(f"| {kind} | {' | '.join(f'{row[name]:,}' for name in _OUTCOMES)} |")
    return "\n".join([*lines, "", f"Again: `{figures['command']}`"])


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
