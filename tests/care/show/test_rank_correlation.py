import random
import pytest
from evaluation_rows import evaluation
from scipy import stats
from care import CareError
from care.show.rank_correlation import kendall, rank_correlations, spearman


@pytest.mark.parametrize("ties", [False, True])
def test_both_coefficients_are_scipys(ties):
    generator = random.Random(0)
    for count in (3, 4, 12, 40):
        draw = generator.random if not ties else lambda: generator.randrange(4)
        first = [draw() for _ in range(count)]
        second = [a + draw() for a in first]
        assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert kendall([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def checkpoints(task, **measures):
    """A row for each of some checkpoints, which are told by their weights."""
    rows = []
    for number in range(len(next(iter(measures.values())))):
        figures = {name: values[number] for name, values in measures.items()}
        digests = {"encoder": f"{number}" * 64, "val": "b" * 64}
        rows.append(evaluation(task, f"step-{number}", digests=digests, **figures))
    return rows


def test_each_measure_is_compared_with_each_score_and_losses_are_turned():
    rows = [
        *checkpoints("kNN", top1=[10.0, 20.0, 30.0, 25.0]),
        *checkpoints("linear", top1=[1.0, 2.0, 3.0]),  # of the last one nobody knows
        *checkpoints(
            "label-free quality", rankme=[5.0, 6.0, 9.0, 7.0], alignment=[0.9, 0.7, 0.8, 0.6]
        ),
    ]
    found = {(one.task, one.measure): one for one in rank_correlations(rows)}
    assert {*found} == {
        (task, measure) for task in ("kNN", "linear") for measure in ("rankme", "alignment")
    }
    assert found["kNN", "rankme"].kendall == 1
    assert found["kNN", "rankme"].encoders == 4
    assert found["linear", "rankme"].encoders == 3
    # of six pairs two are in the other order: the 30 behind 20 and 25
    assert found["kNN", "alignment"].kendall == pytest.approx((4 - 2) / 6)


def test_what_others_report_and_other_weights_take_no_part():
    rows = [
        *checkpoints("kNN", top1=[10.0, 20.0, 30.0]),
        *checkpoints("label-free quality", rankme=[5.0, 6.0]),
    ]
    with pytest.raises(CareError, match="wanted 3 encoders that `care evaluate quality`"):
        rank_correlations(rows)
    rows[-1]["source"] = "reported by the paper"
    with pytest.raises(CareError, match="got 1 groups of the former and 1 of others"):
        rank_correlations(rows)
