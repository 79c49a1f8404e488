"""Write the tables of docs/results.md and of the README anew: ``python -m tests.results_page``.

They stand between comments that name their grid, a folder of docs/results with the JSON that
``care reproduce`` left of each run. All else on the pages is written by hand and stays.
"""

import json
import re
from pathlib import Path
from flows.reproduce.arms import ARMS
from flows.reproduce.comparison import Comparison
from flows.reproduce.runs import RunResult, reference_arm

ROOT = Path(__file__).parent.parent
GRIDS = ROOT / "docs" / "results"
PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")


def comparison_of(grid: str) -> Comparison:
    """The runs of a grid whose JSON is kept, in the order of the arms."""
    results = [
        RunResult.from_json(json.loads(path.read_text())) for path in (GRIDS / grid).glob("*.json")
    ]
    order = [*ARMS]
    results.sort(key=lambda result: (order.index(result.arm.name), result.seed))
    reference = reference_arm(None, [result.arm for result in results])
    return Comparison(grid, reference, results)


def with_tables(page: str) -> str:
    """The page with the tables of each grid that it names."""
    return re.sub(
        r"(?s)<!-- grid: ([\w-]+) -->\n.*?<!-- end of grid -->",
        lambda match: _block(match[1]),
        page,
    )


def _block(grid: str) -> str:
    """The comments that name a grid, and between them its verdict and tables."""
    markdown = comparison_of(grid).as_markdown()
    tables = markdown.partition("\n")[2].strip().replace("\n## ", "\n#### ")
    return f"<!-- grid: {grid} -->\n{tables}\n<!-- end of grid -->"


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text()))
