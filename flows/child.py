"""Stages in processes of their own, forked from one that has imported everything; also what torchrun starts.

``python -m flows.child FD`` is that one. It ends with whoever holds the other end of the socket FD; what it forked is then asked to stop.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any
import torch
from care.train.ranks import limit_threads
from flows import pieces, records, works
from flows.exits import exit_on_failure
from flows.supervise import OUTCOME
from shards.errors import Failure, Misuse, Stopped, StoreError


def serve(connection: socket.socket) -> None:
    """Say how many GPUs there are, then fork for every socket sent, to read JSON from and to write to, until the other end is closed."""
    with suppress(ConnectionError):  # of one who has ended already
        connection.send(
            bytes([torch.cuda.device_count()])
        )  # which does not touch them: no child could use them after that
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; a stage's process gets it, too
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # nobody waits for them: they tell by their descriptor
    while True:
        try:
            byte, received, _, _ = socket.recv_fds(connection, 1, 1)
        except ConnectionError:
            return
        if not byte:
            return
        if os.fork():
            os.close(received[0])
            continue
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        connection.close()
        for standard in (1, 2):
            os.dup2(received[0], standard)
        print(f"{OUTCOME}{json.dumps(['pid', os.getpid()])}", flush=True)
        with os.fdopen(received[0]) as request:
            given = json.load(request)
        outcome = _outcome(*given)
        print(f"\n{OUTCOME}{json.dumps(outcome)}", flush=True)
        os._exit(0)


def _interrupt(*_: Any) -> None:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # one is enough: a Ctrl-C reaches us, and our starter, who sends another
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _outcome(do: str, arguments: Any, slot: dict[str, str]) -> tuple[str, str]:
    os.environ |= slot
    limit_threads()  # alone, too: torch does not know of a container's quota
    try:
        if do == "piece":
            pieces.do_piece(*arguments)
        else:
            records.finish(records.KeyedStage(*arguments))
    except (Stopped, KeyboardInterrupt) as error:
        return "stopped", str(
            error
        ) or "stopped on request; finished work is kept, the same command continues"
    except StoreError as error:
        return "store", str(error)
    except (Failure, OSError) as error:
        return "usage" if isinstance(error, Misuse) else "failed", str(error)
    except BaseException:
        return "bug", traceback.format_exc()
    return "done", ""


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with exit_on_failure():
            work, out, given = json.loads(sys.argv[1])
            works.run_work(work, out, given)
    else:
        works.import_all()
        serve(socket.socket(fileno=int(sys.argv[1])))
