import subprocess
import sys

import numpy as np
import pytest

from shards import ShardError, step_ids


def test_an_epoch_is_a_permutation_without_its_incomplete_batch():
    steps = [step_ids(103, batch_size=10, step=k, seed=3) for k in range(20)]
    assert [step.epoch for step in steps] == [0] * 10 + [1] * 10
    for epoch in (steps[:10], steps[10:]):
        ids = np.concatenate([step.ids for step in epoch])
        assert ids.dtype == np.int64
        assert len(set(ids.tolist())) == 100
        assert set(ids.tolist()) <= set(range(103))
    left_out = [set(range(103)) - {i for step in epoch for i in step.ids.tolist()} for epoch in (steps[:10], steps[10:])]
    assert left_out[0] != left_out[1]


def test_a_step_depends_on_nothing_but_its_arguments():
    want = step_ids(50, batch_size=8, step=17, seed=5).ids.tolist()
    for step in (3, 40, 90):
        step_ids(50, batch_size=8, step=step, seed=5)
    assert step_ids(50, batch_size=8, step=17, seed=5).ids.tolist() == want
    script = "import shards; print(shards.step_ids(50, batch_size=8, step=17, seed=5).ids.tolist())"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == str(want)


def test_the_bits_never_change():
    assert step_ids(8, batch_size=8, step=0, seed=0).ids.tolist() == [5, 3, 7, 2, 4, 1, 0, 6]


def test_seeds_and_epochs_give_other_orders():
    orders = [tuple(step_ids(40, batch_size=40, step=e, seed=s).ids.tolist()) for s in (0, 1, -1) for e in range(5)]
    assert len(set(orders)) == 15


def test_samples_are_uniform_over_positions():
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), step_ids(6, batch_size=6, step=epoch, seed=1).ids] += 1
    assert abs(counts / 500 - 1).max() < 0.2


def test_ids_cannot_be_spoiled_by_their_reader():
    with pytest.raises(ValueError):
        step_ids(8, batch_size=4, step=0, seed=0).ids[0] = 1


@pytest.mark.parametrize(("count", "batch_size", "step"), [(7, 8, 0), (0, 1, 0), (8, 0, 0), (8, 4, -1)])
def test_what_cannot_be_drawn_is_refused(count, batch_size, step):
    with pytest.raises(ShardError, match=f"batch {step} of {batch_size} samples, got a set of {count}"):
        step_ids(count, batch_size=batch_size, step=step, seed=0)
