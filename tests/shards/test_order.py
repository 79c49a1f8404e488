import subprocess
import sys
import tracemalloc
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
    first = np.concatenate([step.ids for step in steps[:10]])
    second = np.concatenate([step.ids for step in steps[10:]])
    assert set(first.tolist()) != set(second.tolist())  # others are left out


def test_a_step_depends_on_nothing_but_its_arguments():
    ids = step_ids(50, batch_size=8, step=17, seed=5).ids.tolist()
    for step in (3, 40, 90):
        step_ids(50, batch_size=8, step=step, seed=5)
    assert step_ids(50, batch_size=8, step=17, seed=5).ids.tolist() == ids
    script = "import shards; print(shards.step_ids(50, batch_size=8, step=17, seed=5).ids.tolist())"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == str(ids)


def test_the_bits_never_change():
    assert step_ids(8, batch_size=8, step=0, seed=0).ids.tolist() == [5, 3, 7, 2, 4, 1, 0, 6]


def test_seeds_and_epochs_give_other_orders():
    orders = set()
    for seed in (0, 1, -1):
        for epoch in range(5):
            ids = step_ids(40, batch_size=40, step=epoch, seed=seed).ids
            orders.add(tuple(ids.tolist()))
    assert len(orders) == 15


def test_samples_are_uniform_over_positions():
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), step_ids(6, batch_size=6, step=epoch, seed=1).ids] += 1
    assert abs(counts / 500 - 1).max() < 0.2


def test_ids_cannot_be_spoiled_by_their_reader():
    step_ids(8, batch_size=4, step=0, seed=0).ids[:] = -1
    assert step_ids(8, batch_size=4, step=0, seed=0).ids.min() >= 0


@pytest.mark.parametrize(
    ("count", "batch_size", "step"), [(7, 8, 0), (0, 1, 0), (8, 0, 0), (8, 4, -1)]
)
def test_what_cannot_be_drawn_is_refused(count, batch_size, step):
    message = f"batch {step} of {batch_size} samples, got a set of {count}"
    with pytest.raises(ShardError, match=message):
        step_ids(count, batch_size=batch_size, step=step, seed=0)


def epoch_ids(count, batch_size, steps):
    """The samples of some steps, in order, in blocks of runs of ten."""
    draws = [
        step_ids(count, batch_size=batch_size, step=step, seed=3, run_length=10) for step in steps
    ]
    return np.concatenate([draw.ids for draw in draws])


@pytest.mark.parametrize("count", [320, 321, 329, 1601, 5003])
def test_in_blocks_an_epoch_is_still_a_permutation(count):
    for batch_size in (1, 7, 100, 317):
        steps = count // batch_size
        for epoch in range(2):
            numbers = range(epoch * steps, (epoch + 1) * steps)
            ids = epoch_ids(count, batch_size, numbers)
            assert len(ids) == steps * batch_size
            assert len(np.unique(ids)) == len(ids)
            assert 0 <= ids.min() <= ids.max() < count


def runs_of_batches(epoch):
    """Which runs each of the 625 batches of an epoch has samples of."""
    batches = []
    for number in range(625):
        step = number + epoch * 625
        ids = step_ids(100_000, batch_size=160, step=step, seed=0, run_length=10).ids
        batches.append(np.unique(ids // 10))
    return batches


def test_a_block_reads_few_runs_and_epochs_read_others_together():
    together = []
    for epoch in range(2):
        batches = runs_of_batches(epoch)
        assert max(map(len, batches)) <= 2 * 16
        firsts = [runs.min() for runs in batches]
        assert np.corrcoef(firsts, np.arange(625))[0, 1] < 0.2
        together.append({frozenset(runs.tolist()) for runs in batches})
    assert not together[0] & together[1]


def test_samples_of_blocks_are_uniform_over_positions():
    orders = [
        step_ids(340, batch_size=340, step=epoch, seed=1, run_length=10).ids
        for epoch in range(2000)
    ]
    positions = np.argsort(np.array(orders), axis=1)
    assert abs(positions.mean(0) / 169.5 - 1).max() < 0.1
    last = (positions >= 330).mean(0) * 34  # as often left out by a batch of 330
    assert 0.5 < last.min() < last.max() < 1.6


def test_the_bits_of_blocks_never_change():
    ids = step_ids(100, batch_size=10, step=3, seed=7, run_length=2).ids
    assert ids.tolist() == [61, 20, 81, 28, 37, 70, 36, 93, 64, 74]


def test_a_billion_samples_cost_a_step_no_memory():
    step_ids(10**9, batch_size=1024, step=1, seed=0)
    tracemalloc.start()
    seen = [
        step_ids(10**9, batch_size=1024, step=step, seed=0).ids
        for step in (0, 1, 15, 500_000, 976_561, 976_562)
    ]
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    ids = np.concatenate(seen)
    assert len(np.unique(ids)) >= len(ids) - 1  # the last step is the next epoch's first
    assert 0 <= ids.min() <= ids.max() < 10**9


def test_ranks_share_a_batch_in_order():
    step = step_ids(50, batch_size=12, step=1, seed=0)
    ids = np.concatenate([step.of_rank(rank, 3) for rank in range(3)])
    assert ids.tolist() == step.ids.tolist()
    with pytest.raises(ShardError, match="cannot cut batches of 12 into 5 equal parts"):
        step.of_rank(0, 5)


def test_parts_have_the_same_samples_however_many_processes_there_are():
    step = step_ids(240, batch_size=24, step=1, seed=3, run_length=24)
    for world in (1, 2, 3, 4):
        shares = [step.of_rank(rank, world, parts=2).reshape(2, -1) for rank in range(world)]
        together = np.concatenate(shares, axis=1)
        assert together.tolist() == step.ids.reshape(2, -1).tolist()
    with pytest.raises(ShardError, match="cannot cut batches of 24 into 10 equal parts"):
        step.of_rank(0, 5, parts=2)
