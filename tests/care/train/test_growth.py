"""A run that is made longer: its rate from there on, and what is said of it."""

import re
import pytest
from small_runs import STEPS, rows, train
from care import CareError, lr_at
from care.train import SGD, Schedule
from care.train.growth import describe_growth, grows

BEFORE = {"steps": 100, "batch_size": 256, "lr": 0.5, "warmup": 10}
OPTIMIZER = SGD(lr=0.5, warmup=10)


def test_a_call_grows_a_run_that_asks_for_more_steps_alone():
    assert grows(BEFORE, steps=101, batch_size=256)
    assert not grows(BEFORE, steps=100, batch_size=256)
    assert not grows(BEFORE, steps=50, batch_size=256)
    assert not grows(BEFORE, steps=200, batch_size=128)
    assert not grows({}, steps=200, batch_size=256)


def test_the_sentence_says_where_the_rate_was_and_where_it_goes_on():
    text = describe_growth(BEFORE, BEFORE | {"steps": 200}, OPTIMIZER, start=100)
    was, now = (float(number) for number in re.findall(r"from (\S+) to (\S+),", text)[0])
    assert was == pytest.approx(lr_at(99, total=100, base=0.5, warmup=10), rel=1e-2)
    assert now == pytest.approx(lr_at(100, total=200, base=0.5, warmup=10), rel=1e-2)
    assert text.startswith("100 steps become 200: after 100 of them")


def test_the_sentence_is_of_the_schedule_that_the_optimizer_has():
    optimizer = SGD(lr=0.5, warmup=10, schedule=Schedule(drops=(0.6, 0.8)))
    text = describe_growth(BEFORE, BEFORE | {"steps": 200}, optimizer, start=70)
    assert "goes from 0.05 to 0.5, " in text
    assert "and falls to 0.005 at the new end" in text


def test_nothing_is_said_where_nothing_changes_or_nothing_is_done_yet():
    assert describe_growth(BEFORE, BEFORE, OPTIMIZER, start=50) == ""
    assert describe_growth(BEFORE, BEFORE | {"steps": 200}, OPTIMIZER, start=0) == ""
    assert describe_growth({}, BEFORE, OPTIMIZER, start=0) == ""


def test_a_finished_run_goes_on_with_the_rate_of_its_new_length(data, tmp_path, capsys):
    train(data, tmp_path)
    with pytest.raises(CareError, match=r"\(--allow-change epochs\)"):
        train(data, tmp_path, steps=STEPS + 2)
    grown = train(data, tmp_path, steps=STEPS + 2, allow_change=["epochs"])
    assert grown.steps == STEPS + 2
    rates = [row["lr"] for row in rows(tmp_path)]
    base = 0.05 * 8 / 256
    first = [lr_at(n, total=STEPS, base=base, warmup=2) for n in range(STEPS)]
    more = [lr_at(n, total=STEPS + 2, base=base, warmup=2) for n in range(STEPS, STEPS + 2)]
    assert rates == first + more
    assert "6 steps become 8: after 6 of them the learning rate goes" in capsys.readouterr().err
