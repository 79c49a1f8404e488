"""The results that are published: pages agree with the JSON of the runs beside them."""

import json
import re
import pytest
from results_page import GRIDS, PAGES, comparison_of, with_tables

# beside the grids are the figures of reliability, for another page
FOLDERS = sorted(path for path in GRIDS.iterdir() if path.is_dir() and path.name != "reliability")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_its_runs(page) -> None:
    text = page.read_text()
    assert with_tables(text) == text


def test_every_published_grid_is_on_the_page_of_results() -> None:
    named = re.findall(r"<!-- grid: ([\w-]+) -->", PAGES[0].read_text())
    assert sorted(named) == [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_table_has_the_figures_of_the_jsons(folder) -> None:
    tables = comparison_of(folder.name).as_markdown()
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert runs
    for arm in {run["arm"]["name"] for run in runs}:
        rows = [run["rows"] for run in runs if run["arm"]["name"] == arm]
        knn = [row["top1"] for of_run in rows for row in of_run if row["task"] == "kNN"]
        assert re.search(rf"\| {arm} \| {sum(knn) / len(knn):.1f}\b", tables)


def test_a_table_that_was_edited_by_hand_is_written_anew() -> None:
    block = f"<!-- grid: {FOLDERS[0].name} -->\nwrong\n<!-- end of grid -->"
    written = with_tables(f"before\n{block}\nafter\n")
    assert "wrong" not in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert with_tables(written) == written
