import multiprocessing
import shutil
from types import SimpleNamespace
import pytest
import torch
from care.train import batches
from care.train.loading import automatic_workers, worker_count

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIGABYTE = 2**30


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many cores, threads of torch and bytes of shared memory."""
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def set_up(cores, threads=1, shared_memory=1000 * GIGABYTE):
        monkeypatch.setattr("shards.cores.available_cores", lambda: cores)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=shared_memory))

    return set_up


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (4, 3), (9, 8), (64, 8)])
def test_on_cuda_all_cores_but_one_decode(machine, cores, workers):
    machine(cores, threads=cores)
    assert automatic_workers(CUDA) == workers


def test_the_processes_of_a_machine_share_its_cores(machine, monkeypatch):
    machine(16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun does that; decoding is not meant
    assert automatic_workers(CUDA) == 3


@pytest.mark.parametrize(
    ("cores", "threads", "workers"),
    [(1, 1, 0), (4, 4, 0), (4, 3, 1), (4, 1, 2), (2, 4, 0)],
)
def test_on_a_cpu_the_cores_decode_that_are_left(machine, cores, threads, workers):
    machine(cores, threads)
    assert automatic_workers(CPU) == workers
    machine(cores)
    assert automatic_workers(CPU, threads) == workers  # of both views


def test_what_is_asked_for_is_obeyed_but_for_workers_without_a_batch(machine):
    machine(4)
    assert worker_count(6, CPU, batches=100) == 6
    assert worker_count(0, CUDA, batches=100) == 0
    assert worker_count(6, CPU, batches=2) == 2
    assert worker_count(6, CPU, batches=0) == worker_count(None, CPU, batches=-3) == 0


def test_a_short_stream_starts_no_workers(machine):
    machine(4)
    assert worker_count(None, CPU, batches=19) == 0
    assert worker_count(None, CPU, batches=20) == 2
    assert worker_count(3, CPU, batches=19) == 3


def test_workers_have_room_for_their_batches(machine, capsys):
    machine(9, shared_memory=64 * 2**20)
    assert worker_count(None, CUDA, batches=100, batch_bytes=2**21) == 4
    assert "/dev/shm has room for the batches of 4 of 8 workers" in capsys.readouterr().err
    assert worker_count(None, CUDA, batches=100, batch_bytes=2**30) == 0
    assert worker_count(8, CUDA, batches=100, batch_bytes=2**30) == 8
    capsys.readouterr()
    assert worker_count(None, CUDA, batches=100, batch_bytes=2**10) == 8
    assert capsys.readouterr().err == ""


def test_a_system_without_shared_memory_in_files_may_have_workers(machine, monkeypatch):
    def missing(_):
        raise FileNotFoundError

    machine(4)
    monkeypatch.setattr(shutil, "disk_usage", missing)
    assert worker_count(None, CPU, batches=100, batch_bytes=2**30) == 2


@pytest.mark.parametrize("daemon", [False, True])
def test_a_daemon_decodes_itself_and_other_processes_with_workers(data, machine, daemon):
    """Such as a process of Dask, which may have no children."""
    machine(4)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def read():
        stream = batches(data, size=32, batch_size=4, steps=24)
        count = sum(1 for _ in stream)
        sender.send((automatic_workers(CPU), count))

    process = context.Process(target=read, daemon=daemon)
    process.start()
    assert receiver.poll(120)
    assert receiver.recv() == (0 if daemon else 2, 24)
    process.join(20)
    assert process.exitcode == 0


def test_a_set_of_few_batches_is_read_whole(data, machine):
    machine(64)
    assert [step for step, _ in batches(data, size=32, batch_size=12, steps=2)] == [0, 1]
    assert [step for step, _ in batches(data, size=32, batch_size=12, steps=2, workers=5)] == [0, 1]


def test_automatic_workers_change_no_bit(data, machine):
    machine(4)
    settings = {"size": 32, "batch_size": 4, "steps": 21}
    alone = batches(data, **settings, workers=0)
    for (_, views), (_, expected) in zip(batches(data, **settings), alone, strict=True):
        assert all(map(torch.equal, views, expected))


def test_where_processes_cannot_be_forked_no_worker_is_started_unasked(machine, monkeypatch):
    machine(8)
    monkeypatch.setenv("CARE_FORK", "no")
    assert automatic_workers(CUDA) == automatic_workers(CPU) == 0
    assert worker_count(3, CPU, batches=100) == 3
