"""The process that stages are forked from, and what each of those does; also what torchrun starts.

``python -m flows.child FD`` imports everything once, which takes seconds, and forks whenever a
socket comes in at the socket FD. It ends with whoever holds the other end of that; what it forked
is then asked to stop. ``flows.supervise`` is the other end. Where processes cannot be forked, each
stage is started anew: ``python -m flows.child stage FD``.
Tests: ``tests/flows/test_supervise.py`` and ``test_pipeline_kills.py``.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any
import torch
from care.train.ranks import limit_threads
from flows import pieces, records, works
from flows.exits import exit_on_failure
from flows.outcomes import Outcome, format_outcome, format_pid, outcome_of
from shards.orphans import end_with_parent
from shards.processes import can_fork


def serve(connection: socket.socket) -> None:
    """Say how many GPUs there are, then fork for every socket that is sent.

    A fork reads its work from that socket, as JSON, and prints to it.

    Args:
        connection: to ``flows.supervise``; its end is ours.
    """
    with suppress(ConnectionError):  # of one who has ended already
        # counting does not touch the GPUs: no fork could use them after that
        connection.send(bytes([torch.cuda.device_count()]))
    # of a terminal; a stage's process gets it, too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # nobody waits for the forks: they tell by their descriptor
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            byte, received, _, _ = socket.recv_fds(connection, 1, 1)
        except ConnectionError:
            return
        if not byte:
            return
        if not can_fork():
            _start_stage(received[0])
        elif os.fork() == 0:
            connection.close()
            _be_stage(received[0])
        os.close(received[0])


def _start_stage(descriptor: int) -> None:
    """Start the process of one stage, without a fork."""
    command = [sys.executable, "-m", "flows.child", "stage", str(descriptor)]
    subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)


def _be_stage(descriptor: int) -> None:
    """Be the process of one stage, and end with it.

    Args:
        descriptor: of the socket for its work, its output and its outcome.
    """
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for standard_stream in (1, 2):
        os.dup2(descriptor, standard_stream)
    print(format_pid(os.getpid()), flush=True)
    with os.fdopen(descriptor) as request:
        work, arguments, slot = json.load(request)
    try:
        # only in here is an interrupt an outcome: before, SIGTERM ends the process, after, nothing
        _on_stop(_interrupt)
        outcome = _do(work, arguments, slot)
        _on_stop(signal.SIG_IGN)
    except KeyboardInterrupt as error:
        outcome = outcome_of(error)
    # on a line of its own, whatever was printed last
    print(f"\n{format_outcome(outcome)}", flush=True)
    os._exit(0)


def _interrupt(*_: Any) -> None:
    """Stop once: a Ctrl-C reaches us, and our starter, who sends another signal."""
    _on_stop(signal.SIG_IGN)
    raise KeyboardInterrupt


def _on_stop(handler: Any) -> None:
    """What is done from now on when a signal asks this process to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _do(work: str, arguments: Any, slot: dict[str, str]) -> Outcome:
    """Do a stage or a piece of one with a share of the machine.

    Args:
        work: "stage", "piece", or "member" for one of several processes that train together.
        arguments: of the one or the other.
        slot: variables for the environment.
    """
    os.environ |= slot
    # alone, too: torch does not know of a container's quota
    limit_threads()
    try:
        if work == "piece":
            pieces.do_piece(*arguments)
        elif work == "member":
            works.run_work(*arguments)
        else:
            records.finish(records.KeyedStage(*arguments))
    except BaseException as error:
        return outcome_of(error)
    return Outcome("done", "")


def main() -> None:
    """Be one of torchrun's processes, which get their work as an argument, or the origin."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        if sys.argv[1] == "stage":
            _be_stage(int(sys.argv[2]))
        works.import_all()
        serve(socket.socket(fileno=int(sys.argv[1])))
        return
    with exit_on_failure():
        work, out, inputs = json.loads(sys.argv[1])
        works.run_work(work, out, inputs)


if __name__ == "__main__":
    main()
