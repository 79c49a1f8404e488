import re
import pytest
from evaluation_rows import pair, row
from care.show import differences
from care.show.whiskers import picture


def test_a_picture_keeps_order_and_scale():
    rows = [*pair("kNN", 9.0, 2.0), *pair("linear", -3.0, 1.0), *pair("COCO", 0.0, 1.0)]
    drawn_picture = picture(differences(rows))
    ((title, whiskers),) = drawn_picture.pairs
    assert title == "CARE − random initialisation"
    scale = ({label: place for place, label in drawn_picture.ticks}["+5"] - drawn_picture.zero) / 5
    for whisker, (points, half_width) in zip(whiskers, ((9, 2), (-3, 1), (0, 1)), strict=True):
        assert whisker.centre == pytest.approx(drawn_picture.zero + scale * points, abs=0.02)
        assert whisker.interval == pytest.approx(
            [drawn_picture.zero + scale * (points + end) for end in (-half_width, half_width)],
            abs=0.02,
        )
        assert 0 < whisker.interval[0] < whisker.interval[1] < 100


@pytest.mark.parametrize("points", [0.0, 0.003, -0.2, 7.0, 99.0])
def test_any_axis_has_a_few_round_ticks_with_zero(points):
    rows = [row("kNN", "random", 0.0), row("kNN", "CARE", points)]
    ticks = picture(differences(rows)).ticks
    assert 1 <= len(ticks) <= 5
    assert "0" in [label for _, label in ticks]
    for place, label in ticks:
        assert re.fullmatch(r"0|[+−][\d.e+-]+", label)
        assert 0 <= place <= 100
