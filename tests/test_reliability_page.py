"""The figures of trust: the page agrees with the JSON beside it."""

import json
from reliability_page import FIGURES, PAGE, flips_table, with_tables


def test_the_tables_of_the_page_are_those_of_the_figures() -> None:
    text = PAGE.read_text()
    assert with_tables(text) == text


def test_a_table_adds_up_to_the_bits_that_were_flipped() -> None:
    figures = json.loads((FIGURES / "flips.json").read_text())
    table = flips_table(figures)
    counts = [sum(row.values()) for row in figures["kinds"].values()]
    assert sum(counts) == figures["flips"]
    assert figures["command"] in table
    assert table.count("\n| ") == len(counts) + 1
