"""Forked processes that train as one over gloo."""

import multiprocessing
import pickle
import tempfile
import traceback
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
import torch.distributed as dist

# gloo's connections fail now and then on a machine that is busy: "Connection closed by peer"
TRIES = 3


class NoGroupError(Exception):
    """The processes did not come together."""


def together(world, work):
    """``work()`` in every process of a group of ``world``; its values in rank order."""
    for _ in range(TRIES - 1):
        with suppress(NoGroupError):
            return _together_once(world, work)
    return _together_once(world, work)


def _together_once(world, work):
    context = multiprocessing.get_context("fork")
    answers = {}

    def member(rank, store, pipe):
        try:
            group = {"init_method": f"file://{store}", "rank": rank, "world_size": world}
            dist.init_process_group("gloo", **group)
        except Exception:
            pipe.send_bytes(b"")
            return
        try:
            answer = work(), None
        except BaseException:
            answer = None, traceback.format_exc()
        # as bytes: a tensor that is sent wants its sender alive when it is received
        pipe.send_bytes(pickle.dumps(answer))
        dist.destroy_process_group()

    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(world)]
        members = [
            context.Process(target=member, args=(n, Path(folder, "store"), pipes[n][1]))
            for n in range(world)
        ]
        for process in members:
            process.start()
        try:
            waiting = {receive: rank for rank, (receive, _) in enumerate(pipes)}
            while waiting:
                ready = connection.wait(waiting, 120)
                assert ready, "a process does not answer"
                for receive in ready:
                    answer = receive.recv_bytes()
                    if not answer:
                        raise NoGroupError
                    answers[waiting.pop(receive)] = pickle.loads(answer)
        finally:
            for process in members:
                if len(answers) == world:
                    process.join(10)
                process.kill()
    in_order = [answers[rank] for rank in range(world)]
    failed = [error for _, error in in_order if error]
    assert not failed, failed[0]
    return [value for value, _ in in_order]
