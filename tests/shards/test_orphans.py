"""Processes whose parent ends, on Linux and without what only Linux has."""

import subprocess
import sys
import pytest

# a process that starts another one and ends before it; the other one tells how it ends
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
"""
CHILD = """
import ctypes, signal, sys, time
{system}
from shards.orphans import end_with_parent
def end(*_):
    print("asked to end", file=sys.stderr, flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
end_with_parent(signal.SIGTERM)
print("ready", flush=True)
time.sleep(60)
"""
WITHOUT_PRCTL = "ctypes.CDLL = lambda _: object()"


@pytest.mark.parametrize("system", ["", WITHOUT_PRCTL], ids=["linux", "elsewhere"])
def test_a_process_is_asked_to_end_once_its_parent_has(system) -> None:
    command = [sys.executable, "-c", PARENT, CHILD.format(system=system)]
    # the pipe is closed by the last that has it: the child
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=30, check=True)
    assert ended.stderr == "asked to end\n"


def test_a_process_goes_on_while_its_parent_lives() -> None:
    work = (
        f"import ctypes, signal, time; {WITHOUT_PRCTL}; from shards.orphans import end_with_parent;"
        " end_with_parent(signal.SIGKILL); time.sleep(1.2); print('through')"
    )
    command = [sys.executable, "-c", work]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "through\n"
