from itertools import pairwise
from math import cos, pi
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from care import lr_at, momentum_at


def torch_cosine(steps, base):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    values = []
    for _ in range(steps + 1):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return values


def test_warm_up_is_linear_from_start_to_base():
    rates = [lr_at(step, total=100, base=0.4, warmup=10) for step in range(11)]
    assert rates[0] == 1e-6
    assert rates[10] == 0.4
    assert rates == pytest.approx([1e-6 + (0.4 - 1e-6) * k / 10 for k in range(11)], abs=1e-15)
    assert lr_at(5, total=100, base=0.4, warmup=10, start=0.2) == pytest.approx(0.3)


@pytest.mark.parametrize("warmup", [0, 7])
def test_the_rest_is_a_cosine_to_zero_at_the_total(warmup):
    steps = range(warmup, 31 + warmup)
    rates = [lr_at(step, total=30 + warmup, base=0.2, warmup=warmup) for step in steps]
    assert rates == pytest.approx(torch_cosine(30, 0.2), abs=1e-12)
    assert rates[0] == 0.2
    assert rates[15] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0, abs=1e-15)
    assert lr_at(1000, total=30 + warmup, base=0.2, warmup=warmup) == pytest.approx(0, abs=1e-15)


def test_a_run_that_is_all_warm_up_ends_at_the_base():
    assert lr_at(9, total=10, base=1, warmup=10, start=0) == pytest.approx(0.9)
    assert lr_at(10, total=10, base=1, warmup=10, start=0) == 1


def test_momentum_goes_from_its_base_to_one():
    values = [momentum_at(step, total=200) for step in range(201)]
    assert values[0] == pytest.approx(0.99, abs=1e-15)
    assert values[100] == pytest.approx(0.995, abs=1e-15)
    assert values[200] == 1
    formula = [1 - 0.01 * (cos(pi * t / 200) + 1) / 2 for t in range(201)]
    assert values == pytest.approx(formula, abs=1e-15)
    assert all(a < b for a, b in pairwise(values))
    assert momentum_at(300, total=200) == 1
    assert momentum_at(0, total=200, base=0.5) == 0.5
