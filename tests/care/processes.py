"""Forked processes that train as one over gloo."""

import multiprocessing
import pickle
import tempfile
import traceback
from pathlib import Path
import torch.distributed as dist


def together(world, work):
    """``work()`` in every process of a group of ``world``; its values in rank order."""
    context = multiprocessing.get_context("fork")
    answers = []

    def member(rank, store, pipe):
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
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
            for receive, _ in pipes:
                assert receive.poll(120), "a process does not answer"
                answers.append(pickle.loads(receive.recv_bytes()))
        finally:
            for process in members:
                process.join(10)
                process.kill()
    failed = [error for _, error in answers if error]
    assert not failed, failed[0]
    return [value for value, _ in answers]
