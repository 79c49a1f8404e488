"""Builds by processes: the bytes of one by threads, and what happens where a process ends."""

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import pytest
import shards
from shards import ShardError, locks, writers
from shards.plan import make_plan
from shards.processes import DiedError, can_fork, run_in_processes

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux alone")


@pytest.fixture
def by_processes(monkeypatch):
    """Every build with several workers is one by processes."""
    monkeypatch.setattr(writers, "_FEW_IMAGES", 0)
    monkeypatch.setattr(writers, "_write_by_threads", None)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def ending(by, at):
    """A ``write_shard`` whose process ends at an image of shard 1."""
    write_shard = writers.write_shard

    def write(plan, dest, number, tick):
        steps = iter(range(99))

        def ending_tick():
            tick()
            if number == 1 and next(steps) == at:
                by()

        write_shard(plan, dest, number, ending_tick)

    return write


def kill(sent):
    def by_signal():
        faulthandler.disable()  # pytest's, which would print
        os.kill(os.getpid(), sent)

    return by_signal


# what is built


def test_the_bytes_are_those_that_threads_write(photos, tmp_path, monkeypatch, capsys):
    shards.build(photos, tmp_path / "threads", shard_size=4, workers=3)
    capsys.readouterr()
    monkeypatch.setattr(writers, "_FEW_IMAGES", 0)
    monkeypatch.setattr(writers, "_write_by_threads", None)
    shards.build(photos, tmp_path / "processes", shard_size=4, workers=3)
    assert "building: 17/17" in capsys.readouterr().err
    assert content(tmp_path / "processes") == content(tmp_path / "threads")
    assert not multiprocessing.active_children()


# what ends


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_is_killed_is_told_with_its_image_and_the_build_goes_on(
    photos, tmp_path, monkeypatch, by_processes, sent
):
    expected = shards.build(photos, tmp_path / "expected", shard_size=4, workers=2)
    plan = make_plan(photos, shard_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(writers, "write_shard", ending(kill(sent), at=2))
        name = re.escape(plan.shards[1][2].name)
        told = rf"wrote shard-000001\.tar ended by {sent.name} at {name}; repeat the command"
        with pytest.raises(ShardError, match=told):
            shards.build(photos, tmp_path / "set", shard_size=4, workers=2)
    assert not multiprocessing.active_children()
    index = shards.build(photos, tmp_path / "set", shard_size=4, workers=2)
    assert index.digest == expected.digest
    assert content(tmp_path / "set") == content(tmp_path / "expected")


def test_what_a_process_refuses_is_raised_and_the_others_are_given_up(
    photos, tmp_path, monkeypatch, by_processes
):
    message = "the disk of \udcff is full; make room"

    def refuse():
        raise ShardError(message)

    monkeypatch.setattr(writers, "write_shard", ending(refuse, at=0))
    with pytest.raises(ShardError, match=message):
        shards.build(photos, tmp_path / "set", shard_size=4, workers=2)
    assert not multiprocessing.active_children()
    assert not list((tmp_path / "set").glob(".part-*"))


def test_an_interrupt_gives_up_the_shards_under_way():
    ended = multiprocessing.get_context("fork").Value("i", 0)

    def endless(_, tick):
        try:
            while True:
                tick()
                time.sleep(0.01)
        finally:
            ended.value += 1

    def interrupt(count):
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_processes(endless, [0], 1, interrupt)
    assert ended.value == 1


def test_no_more_processes_than_wanted_run_and_every_step_counts():
    context = multiprocessing.get_context("fork")
    running, most = context.Value("i", 0), context.Value("i", 0)
    pairs = context.Barrier(2)  # a process of a busy machine would end before the next begins

    def work(_, tick):
        with running.get_lock():
            running.value += 1
            most.value = max(most.value, running.value)
        for _ in range(5):
            tick()
        pairs.wait(60)
        with running.get_lock():
            running.value -= 1

    counts = []
    thread = threading.Thread(target=run_in_processes, args=(work, range(6), 2, counts.append))
    thread.start()  # a flow builds in a thread
    thread.join()
    assert (most.value, sum(counts)) == (2, 30)


def test_an_error_that_is_none_of_ours_is_told_by_its_traceback(capfd):
    with pytest.raises(DiedError, match="exit code 1"):
        run_in_processes(lambda piece, tick: {}[piece], [7], 1, lambda count: None)
    assert "KeyError: 7" in capfd.readouterr().err


def test_processes_end_with_the_one_that_began_them(photos, tmp_path):
    script = """
import sys, time, shards
from shards import writers
writers._FEW_IMAGES = 0
write_shard = writers.write_shard
def slow(plan, dest, number, tick):
    write_shard(plan, dest, number, lambda: (tick(), time.sleep(0.2)))
writers.write_shard = slow
shards.build(sys.argv[1], sys.argv[2], shard_size=9, workers=2)
"""
    command = [sys.executable, "-c", script, photos, tmp_path / "set"]
    child = subprocess.Popen(command)
    while len(list(tmp_path.glob("set/.part-*"))) < 2:
        time.sleep(0.01)
    child.kill()
    child.wait()
    with locks.exclusive(tmp_path / "set", "building", patience=5):
        assert not list((tmp_path / "set").iterdir())
