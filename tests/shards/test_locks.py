"""One process at a time in a folder, local or by URL; for real stores see test_cloud_storage."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from shards import ShardError, leases, locks, objects, storage
from shards.errors import StoreError

BUSY = "another process is testing .*; wait until it ends, or stop it"
HOLD = """
import sys
from pathlib import Path
from shards import leases, locks
url, leases.LEASE_SECONDS, ready = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
with locks.exclusive(url, "testing"):
    ready.touch()
    sys.stdin.read()
"""


@pytest.fixture(params=["local", "url"])
def folder(request, tmp_path):
    """A local folder, and a URL of one."""
    (tmp_path / "f" / ".lease").mkdir(parents=True)
    return tmp_path / "f" if request.param == "local" else f"file://{tmp_path}/f"


@pytest.fixture
def url(tmp_path):
    (tmp_path / "f" / ".lease").mkdir(parents=True)
    return f"file://{tmp_path}/f"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(objects, "PAUSES", (0.01, 0.01))


def lease_names(url):
    return sorted(storage.listing(f"{url}/.lease"))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def wait_for_word(word, capsys):
    """Wait until stderr has some words, whatever its line breaks."""
    texts = []

    def has_word():
        texts.append(capsys.readouterr().err)
        return word in " ".join("".join(texts).split())

    wait_for(has_word)


def holder(place, tmp_path, seconds=2.0):
    """Another process that holds ``place``."""
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), str(seconds), str(ready)], stdin=subprocess.PIPE
    )
    wait_for(lambda: ready.exists() or process.poll() is not None)
    ready.unlink()
    return process


def enter(place, patience=0.0):
    with locks.exclusive(place, "testing", patience=patience):
        return time.monotonic()


def test_another_process_is_refused_waited_for_and_outlived(folder, tmp_path, quick):
    process = holder(folder, tmp_path)
    with pytest.raises(ShardError, match=BUSY):
        enter(folder)
    with pytest.raises(ShardError, match=BUSY):
        enter(folder, patience=0.5)
    process.stdin.close()
    assert process.wait() == 0
    enter(folder)
    process = holder(folder, tmp_path)
    threading.Timer(0.5, process.stdin.close).start()
    enter(folder, patience=60)
    process.wait()


def test_who_waits_says_so(folder, tmp_path, quick, monkeypatch, capsys):
    process = holder(folder, tmp_path)
    every_minute = SimpleNamespace(sleep=time.sleep, monotonic=lambda: 60.0)
    monkeypatch.setattr(leases, "time", every_minute)
    threading.Timer(0.5, process.stdin.close).start()
    enter(folder, patience=60)
    assert "waiting: another process is testing" in capsys.readouterr().err
    process.wait()


def test_a_killed_holder_is_taken_for_dead_and_leaves_nothing(folder, tmp_path, quick):
    process = holder(folder, tmp_path)
    process.kill()
    process.wait()
    with locks.exclusive(folder, "testing"):
        if isinstance(folder, str):
            assert lease_names(folder) == ["00000002"]
    assert lease_names(f"file://{tmp_path}/f") == []


def test_a_holder_that_was_stopped_for_long_learns_that_it_lost(url, tmp_path, quick):
    process = holder(url, tmp_path)
    process.send_signal(signal.SIGSTOP)
    with locks.exclusive(url, "testing"):
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        assert process.wait() == 1
        assert lease_names(url) == ["00000002"]


def test_of_many_that_wait_for_a_dead_ones_lease_one_wins_at_a_time(quick, monkeypatch):
    pipe_file = MemoryFileSystem.pipe_file
    lock = threading.Lock()

    def atomic(*args, **more):  # as in stores, and not in fsspec's memory
        with lock:
            pipe_file(*args, **more)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", atomic)
    storage.write_bytes("memory://contended/.lease/00000007", b"of a dead one")
    inside = []
    counts = []

    def contend(number):
        with locks.exclusive("memory://contended", "testing", patience=60):
            inside.append(number)
            counts.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(contend, range(16)))
    assert counts == [1] * 16
    assert lease_names("memory://contended") == []


def test_a_lease_outlives_its_length_while_its_holder_does(url, quick):
    with locks.exclusive(url, "testing"):
        before = storage.read_bytes(f"{url}/.lease/00000001")
        time.sleep(3)
        assert lease_names(url) == ["00000001"]
        assert storage.read_bytes(f"{url}/.lease/00000001") != before
        with pytest.raises(ShardError, match=BUSY):
            enter(url)


def write_a_higher_one(url):
    storage.write_bytes(f"{url}/.lease/00000002", b"of another")


def remove_it(url):
    storage.remove(f"{url}/.lease/00000001")


def write_over_it(url):
    storage.write_bytes(f"{url}/.lease/00000001", b"of another")


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (write_a_higher_one, ["00000001", "00000002"]),
        (remove_it, []),
        (write_over_it, ["00000001"]),
    ],
)
def test_a_lease_that_is_lost_is_told_at_once_and_at_the_end(url, quick, capsys, loss, names):
    def hold():
        with locks.exclusive(url, "testing"):
            loss(url)
            wait_for_word("taken over", capsys)

    with pytest.raises(ShardError, match=r"f was taken over by another process; let only one"):
        hold()
    assert lease_names(url) == names


@pytest.fixture
def outage(monkeypatch, quick):
    """An event: while it is set, the store fails, and ``failures`` has what was tried."""
    attempt = objects.attempt
    failing = threading.Event()
    failing.failures = []

    def flaky(what, *rest):
        if failing.is_set():
            failing.failures.append(what)
            raise StoreError("no")
        return attempt(what, *rest)

    monkeypatch.setattr(objects, "attempt", flaky)
    return failing


def test_a_short_failure_of_the_store_is_not_even_told(url, outage, capsys):
    with locks.exclusive(url, "testing") as check:
        before = storage.read_bytes(f"{url}/.lease/00000001")
        outage.set()
        wait_for(lambda: outage.failures)
        outage.clear()
        wait_for(lambda: storage.read_bytes(f"{url}/.lease/00000001") not in (before, b""))
        check()
    assert capsys.readouterr().err == ""
    assert lease_names(url) == []


def test_a_long_outage_with_nobody_else_there_loses_nothing(url, outage, capsys):
    with locks.exclusive(url, "testing") as check:
        outage.set()
        wait_for_word("not reached for 2 s; if it is again, and nobody took it over", capsys)
        with pytest.raises(StoreError, match="not known whether another process took it over"):
            check()
        outage.clear()
        wait_for_word("is reached again, and nobody took it over", capsys)
        check()
    assert lease_names(url) == []


def test_an_outage_that_lasts_to_the_end_says_that_nobody_knows(url, outage, capsys):
    def hold():
        with locks.exclusive(url, "testing"):
            outage.set()
            wait_for_word("not reached", capsys)

    with pytest.raises(StoreError, match=r"f was not reached for [2-9] s, so it is not known"):
        hold()
    outage.clear()
    assert lease_names(url) == ["00000001"]


@pytest.mark.parametrize("loss", [write_a_higher_one, remove_it])
def test_who_was_followed_in_an_outage_learns_it_before_it_writes(url, outage, capsys, loss):
    def hold():
        with locks.exclusive(url, "testing") as check:
            outage.set()
            wait_for_word("not reached", capsys)
            outage.clear()
            loss(url)
            with pytest.raises(ShardError, match="was taken over by another process"):
                check()

    with pytest.raises(ShardError, match="was taken over by another process"):
        hold()


def test_what_the_block_raises_is_not_hidden(url, quick, capsys):
    with pytest.raises(ZeroDivisionError), locks.exclusive(url, "testing"):
        raise ZeroDivisionError
    assert lease_names(url) == []

    def hold():
        with locks.exclusive(url, "testing"):
            write_a_higher_one(url)
            wait_for_word("taken over", capsys)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold()


def test_leases_are_no_files_of_the_folder_and_neighbours_do_not_exclude_each_other():
    with (
        locks.exclusive("memory://leases/one/", "testing"),
        locks.exclusive("memory://leases/two", "testing"),
    ):
        storage.write_bytes("memory://leases/one/a.json", b"1")
        assert lease_names("memory://leases/one") == ["00000001"]
        for deep in (False, True):
            assert storage.listing("memory://leases/one", deep=deep) == {"a.json": 1}
    assert lease_names("memory://leases/one") == lease_names("memory://leases/two") == []
