"""The figures of size and memory: the page agrees with the JSON beside it."""

import json
from size_page import FIGURES, PAGE, memory_table, size_table, with_tables


def test_the_tables_of_the_page_are_those_of_the_figures() -> None:
    text = PAGE.read_text()
    assert with_tables(text) == text


def test_a_table_has_the_figures_of_its_json() -> None:
    figures = json.loads((FIGURES / "size.json").read_text())
    assert f"opening {figures['samples']:,} samples" in size_table(figures)
    rows = json.loads((FIGURES / "memory.json").read_text())
    assert all(f"| {row['held_mib']:.0f}" in memory_table(rows) for row in rows)
