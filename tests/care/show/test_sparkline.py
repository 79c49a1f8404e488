import math
from care.show.sparkline import BARS, sparkline


def test_a_bar_stands_for_each_value_between_the_lowest_and_the_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BARS
    assert sparkline([7, 0]) == BARS[-1] + BARS[0]
    assert sparkline([3, 3, 3]) == BARS[0] * 3
    assert sparkline([]) == ""


def test_many_values_are_the_means_of_equal_parts():
    assert sparkline([0, 0, 7, 7], width=2) == BARS[0] + BARS[-1]
    assert sparkline([0, 2, 6, 8, 14, 14], width=3) == BARS[0] + BARS[3] + BARS[-1]
    assert len(sparkline([*range(1001)], width=40)) == 40


def test_what_is_not_finite_leaves_a_gap():
    assert sparkline([1, math.nan, 2]) == f"{BARS[0]} {BARS[-1]}"
    assert sparkline([math.inf, math.nan]) == "  "
