"""A training in a directory: continues from its last checkpoint, logs every step, saves, refuses other settings, stops cleanly."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from care.errors import CareError
from care.train import checkpoint
from shards import storage
from shards.progress import progress

Precision = Literal["bf16", "fp16", "fp32"]


class Stopped(Exception):  # noqa: N818 (no error: it was asked for)
    """The run was asked to stop (SIGINT or SIGTERM) and has saved itself; the same call continues it."""


class Run:
    """What surrounds the steps of a training; used as a context manager around the loop.

    Args:
        path: run directory; the newest checkpoint in it is restored into ``model`` and ``optimizer``, ``start`` is its step.
        model: on its device.
        optimizer: SGD over the model's parameters.
        settings: JSON values that must be the same in every call on this directory; ``steps`` and ``batch_size`` among them.
        title: of the progress.
        precision: of the arithmetic in ``with run.autocast``.
        checkpoint_every: steps between checkpoints.

    Raises:
        CareError: the directory holds a run with other settings.
    """

    def __init__(
        self, path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], *,
        title: str, precision: Precision, checkpoint_every: int,
    ) -> None:  # fmt: skip
        self.path, self.title, self.every = storage.local(path), title, checkpoint_every
        self.model, self.optimizer, self.settings = model, optimizer, json.loads(json.dumps(settings))
        device = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self.autocast = torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32")
        self.start = 0
        if (found := checkpoint.latest(self.path)) is not None:
            self._same_settings(found.manifest["settings"])
            checkpoint.restore(found, model, optimizer)
            self.scaler.load_state_dict(found.manifest["scaler"])
            self.start = found.step

    def __enter__(self) -> "Run":
        with ExitStack() as stack:
            steps, images = self.settings["steps"], self.settings["batch_size"]
            self._losses, self._timing = (stack.enter_context(_log(self.path / f"{n}.jsonl", self.start)) for n in ("losses", "timing"))
            self._advance = stack.enter_context(progress(self.title, steps * images, start=self.start * images))
            self._stop, self._began = stack.enter_context(_stop_requests()), time.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def optimize(self, step: int, loss: Tensor, terms: dict[str, float]) -> None:
        """Backward and one step of the optimizer.

        Raises:
            CareError: one of the ``terms`` of the loss is not finite; nothing was changed.
        """
        for name, value in terms.items():
            if not math.isfinite(value):
                raise CareError(f"the {name} loss is {value} at step {step}; lower lr or lengthen warmup, then start a new run directory")
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def commit(self, step: int, row: dict[str, float], note: str) -> None:
        """Log a step that is complete, and save when it is time to.

        Raises:
            Stopped: on SIGINT or SIGTERM, after saving.
        """
        self._losses.write(json.dumps({"step": step, **row}) + "\n")
        self._timing.write(json.dumps({"step": step, "seconds": round(time.monotonic() - self._began, 3)}) + "\n")
        self._advance(self.settings["batch_size"], note)
        done, steps, stop = step + 1, self.settings["steps"], self._stop.is_set()
        if done % self.every == 0 or done == steps or stop:
            manifest = {"step": done, "settings": self.settings, "scaler": self.scaler.state_dict()}
            checkpoint.save(self.path, self.model, self.optimizer, manifest)
        if stop and done < steps:
            raise Stopped(f"stopped on request after step {done} of {steps} and saved; the same command continues")

    def _same_settings(self, before: dict[str, Any]) -> None:
        for field in sorted(before.keys() | self.settings.keys()):
            if before.get(field) != self.settings.get(field):
                raise CareError(
                    f"{self.path} was trained with {field}={before.get(field)}, this call has {field}={self.settings.get(field)}; "
                    "repeat the first call's settings or choose a new run directory"
                )


def fastest_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware has it (emulated it is slower than float32), else float16 on CUDA and float32 on a CPU."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


@contextmanager
def seeded(seed: int, step: int, where: torch.device) -> Iterator[None]:
    """Torch's global generators, which dropout, stochastic depth and torchvision's samplers draw from, as a function of (seed, step)."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng((seed, step)).integers(2**63)))
        yield


@contextmanager
def _log(path: Path, start: int) -> Iterator[IO[str]]:
    """The JSON-lines file open for appending line by line, without the lines of steps that will be done again."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    storage.write_bytes(path, "".join(lines[:start]).encode())
    with path.open("a", buffering=1) as file:  # a kill, or a report on a live run, meets whole lines
        yield file


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; elsewhere than in the main thread, where Python allows no handlers, it stays clear."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
