import json
import os
import pytest
import torch
from processes import together
from torch.distributed.launcher import api
from care.train import launch, ranks


def test_alone_everything_is_the_identity():
    x = torch.randn(3, 2)
    assert (ranks.rank(), ranks.world(), ranks.max_over_ranks(1, -2.5)) == (0, 1, [1, -2.5])
    assert ranks.gather_rows(x) is x


def test_rows_are_gathered_in_rank_order_with_the_gradients_of_all_losses():
    rows = torch.arange(12, dtype=torch.float64).reshape(6, 2)

    def work():
        own = rows.chunk(3)[ranks.rank()].clone().requires_grad_()
        every = ranks.gather_rows(own)
        # process r's loss is (r + 1) · Σ x², so the sum of all is 6 · Σ x²
        ((ranks.rank() + 1) * every.square().sum()).backward()
        return every.detach(), own.grad, ranks.world()

    found = together(3, work)
    for every, _, world in found:
        assert torch.equal(every, rows)
        assert world == 3
    assert torch.equal(torch.cat([gradient for _, gradient, _ in found]), 12 * rows)


def test_the_largest_of_each_value():
    assert (
        together(2, lambda: ranks.max_over_ranks(ranks.rank(), -ranks.rank(), 0.5))
        == [[1.0, 0.0, 0.5]] * 2
    )


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that torch is given, from 12 on, on a machine of twelve cores."""
    chosen = [12]
    monkeypatch.setattr("shards.cores.available_cores", lambda: 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: chosen[-1])
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return chosen


def test_processes_of_one_machine_share_its_threads(threads, monkeypatch):
    ranks.limit_threads()
    assert threads == [12]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    ranks.limit_threads()
    assert threads == [12, 4]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    ranks.limit_threads()
    assert threads == [12, 4, 2]


def test_fewer_threads_than_allowed_stay(threads):
    threads.append(3)
    ranks.limit_threads()
    assert threads == [12, 3]


def test_a_run_continues_with_its_threads_if_they_are_allowed(threads, monkeypatch, capsys):
    ranks.resume_threads(5)
    assert threads == [12, 5]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    ranks.limit_threads()
    ranks.resume_threads(5)
    assert threads == [12, 5, 4]
    assert "the run had 5 threads, here it has 4: its bits may differ" in capsys.readouterr().err


@pytest.mark.parametrize(("omp", "share"), [(None, "4"), ("2", "2"), ("64", "4")])
def test_torchrun_tells_its_processes_their_threads(tmp_path, monkeypatch, threads, omp, share):
    given = []

    def start(*_):
        def processes(*_):
            given.append(os.environ["OMP_NUM_THREADS"])
            status = {"state": "done", "message": ""}
            (tmp_path / "status.json").write_text(json.dumps(status))

        return processes

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(api, "elastic_launch", start)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    launch.torchrun(tmp_path, 3, [], module="care.train")
    assert given == [share]
    assert os.environ.get("OMP_NUM_THREADS") == omp
