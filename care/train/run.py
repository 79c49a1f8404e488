"""A training in a directory: continues from its last checkpoint, logs every step, saves, refuses other settings, stops cleanly."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import shards
from care import ranks
from care.errors import CareError, Diverged, Stopped
from care.train import checkpoint
from care.train.checkpoint import Saver, pull
from shards import storage
from shards.progress import progress

T = TypeVar("T")
Precision = Literal["bf16", "fp16", "fp32"]


class Run:
    """What surrounds the steps of a training; used as a context manager around the loop, by every process of it.

    ``path`` is the local directory, of a URL the local copy. On entering, the newest whole checkpoint is restored into ``model`` and
    ``optimizer``, and ``start`` is its step; a ``CareError`` if it has other settings, a ``ShardError`` if another process trains there.

    Args:
        path: run directory or URL; the first process writes it, nobody else may meanwhile.
        model: on its device.
        optimizer: SGD over the model's parameters.
        settings: JSON values that must be the same in every call on this directory; ``steps`` and ``batch_size`` among them.
        title: of the progress.
        precision: of the arithmetic in ``with run.autocast``.
        checkpoint_every: steps between checkpoints, written in the background; of the older ones one every ``keep_every`` stays.
        allow_change: names of settings that may differ from those of the earlier calls.
    """

    def __init__(
        self, path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], *,
        title: str, precision: Precision, checkpoint_every: int, keep_every: int = 0, allow_change: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.url, self.path = path, checkpoint.local_copy(path)
        self.title, self.every, self.keep_every, self.allow_change = title, checkpoint_every, keep_every, allow_change
        self.model, self.optimizer, self.settings = model, optimizer, json.loads(json.dumps(settings))
        device = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        self.autocast = autocast(torch.device(device), precision)
        self.start, self.lead = 0, ranks.rank() == 0

    def __enter__(self) -> "Run":
        with ExitStack() as stack:
            if self.lead:  # a killed run's loader workers hold its lock for seconds
                stack.enter_context(storage.exclusive(self.path, "training in", patience=15))
            if storage.is_remote(self.url) and os.environ.get("LOCAL_RANK", str(ranks.rank())) == "0":  # one on each machine
                pull(self.url, self.path)
            for old in self.path.glob("status*.json") if self.lead else ():
                old.unlink()
            stack.push(self._tell)
            ranks.largest(0)  # the others wait for what was fetched
            self._restore()
            if ranks.largest(self.start, -self.start) != [self.start, -self.start]:
                raise CareError(f"the processes see different checkpoints in {self.url}; give a RUN that all machines share")
            steps, images = self.settings["steps"], self.settings["batch_size"]
            self._stop, self._began, self._waited = stack.enter_context(_stop_requests()), time.monotonic(), 0.0
            if self.lead:
                self._losses, self._timing = (stack.enter_context(_log(self.path / f"{n}.jsonl", self.start)) for n in ("losses", "timing"))
                self._advance = stack.enter_context(progress(self.title, steps * images, start=self.start * images))
                self._saver = stack.enter_context(Saver(self.path, self.url, self.keep_every))
                self._status("running")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def steps(
        self, batches: Iterable[T], losses: Callable[[T], Mapping[str, Tensor]], lr: Callable[[int], float], note: str, *,
        probe: Callable[[int], Mapping[str, float]] = lambda _: {},
    ) -> None:  # fmt: skip
        """Take the steps from ``start`` on, a batch each, that minimise the sum of its ``losses``, terms by name.

        A rate is ``initial_lr`` times ``lr``; the progress shows ``note``, a format of the terms and ``total``; ``probe`` is logged, too.
        """
        where = next(self.model.parameters()).device
        for step, batch in enumerate(self.waiting(batches), self.start):
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * lr(step)
            updated = False
            while not updated:
                with self.autocast, seeded(self.settings["seed"], step, where):
                    parts = losses(batch)
                total = torch.stack(list(parts.values())).sum()
                terms = {name: float(value.detach()) for name, value in parts.items()} | {"total": float(total.detach())}
                self.backward(total)
                updated = self.update(step, terms)
            self.commit(step, {**terms, "lr": group["lr"], **probe(step)}, note.format(**terms))

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, with the time spent waiting for them shown as ``data_wait``."""
        began = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        torch.autograd.backward(self.scaler.scale(loss))

    def update(self, step: int, terms: dict[str, float]) -> bool:
        """One step of the optimizer, or a ``CareError`` if a term is not finite; false if float16 overflowed: try again, scaled less."""
        for name, value in terms.items():
            if not math.isfinite(value):
                raise Diverged(f"the {name} loss is {value} at step {step}; lower lr or lengthen warmup, then start a new run directory")
        scale, fresh = self.scaler.get_scale(), not self.optimizer.state
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if (now := self.scaler.get_scale()) < 2**-20:
            raise Diverged(f"the gradients are not finite at step {step}, whatever the loss scale; lower lr, or use --precision bf16")
        if now < scale and fresh:
            self.optimizer.state.clear()  # fused SGD has made its buffers, and left them as they were in memory
        return now >= scale

    def commit(self, step: int, row: dict[str, float], note: str) -> None:
        """Log a step, and save when it is time to; ``Stopped`` after a signal to any process, a ``CareError`` if their weights differ."""
        done, steps = step + 1, self.settings["steps"]
        stop = bool(ranks.largest(bool(self._stop))[0])
        if self.lead:
            seconds = time.monotonic() - self._began
            self._losses.write(json.dumps({"step": step, **row}) + "\n")
            self._timing.write(json.dumps({"step": step, "seconds": round(seconds, 3), "data_wait": round(self._waited, 3)}) + "\n")
            self._advance(self.settings["batch_size"], f"{note} data_wait {100 * self._waited / seconds:.0f} %")
        if done % self.every == 0 or done == steps or stop:
            if ranks.world() > 1:
                weights = [p.detach() for p in self.model.parameters()]
                sums = [float(sum(p.sum(dtype=torch.float64) for p in weights)), float(sum(p.double().square().sum() for p in weights))]
                if ranks.largest(*(both := [*sums, *(-value for value in sums)])) != both:
                    raise CareError(
                        f"the processes' weights differ after step {step}; check the machines, then give the same command again"
                    )
            if self.lead:
                manifest = {"step": done, "settings": self.settings, "scaler": self.scaler.state_dict()}
                numerics = {"threads": torch.get_num_threads(), "world": ranks.world()}
                self._saver.save(self.model, self.optimizer, manifest | numerics)
        if stop and done < steps:
            raise Stopped(f"stopped on request after step {done} of {steps} and saved; the same command continues")

    def _restore(self) -> None:
        if (found := checkpoint.latest(self.path)) is None:
            return
        before = found.manifest["settings"]
        for field in sorted((before.keys() | self.settings.keys()) - set(self.allow_change)):
            if before.get(field) != self.settings.get(field):
                raise CareError(
                    f"{self.url} was trained with {field}={before.get(field)}, this call has {field}={self.settings.get(field)}; "
                    f"repeat the first call's settings, allow the change (--allow-change {field}), or choose a new run directory"
                )
        checkpoint.restore(found, self.model, self.optimizer)
        self.scaler.load_state_dict(found.manifest["scaler"])
        self.start = found.step
        if next(self.model.parameters()).device.type == "cpu" and found.manifest.get("world") == ranks.world():
            torch.set_num_threads(found.manifest["threads"])  # a convolution's gradient has other bits with other threads

    def _status(self, state: str, message: str = "") -> None:
        own = "" if self.lead else f"-{ranks.rank()}"
        storage.write_json(self.path / f"status{own}.json", {"state": state, "message": message})

    def _tell(self, kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Leave how the run ended for whoever started it; what is no error of ours counts as a crash: the state stays ``running``."""
        if isinstance(error, Stopped | CareError | shards.ShardError):
            with suppress(shards.ShardError):  # a full disk, which is what is told already
                self._status("stopped" if isinstance(error, Stopped) else "failed", str(error))
        elif error is None and self.lead:
            self._status("done")


def fastest_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware has it (emulated it is slower than float32), else float16 on CUDA and float32 on a CPU."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which networks compute in a precision."""
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32")


@contextmanager
def seeded(seed: int, step: int, where: torch.device) -> Iterator[None]:
    """Torch's global generators, which dropout, stochastic depth and torchvision's samplers draw from, by (seed, step, process)."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng((seed, step, ranks.rank())).integers(2**63)))
        yield


@contextmanager
def _log(path: Path, start: int) -> Iterator[IO[str]]:
    """The JSON-lines file open for appending line by line, without the lines of steps that will be done again."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    storage.write_bytes(path, "".join(lines[:start]).encode())
    with path.open("a", buffering=1) as file:  # a kill, or a report on a live run, meets whole lines
        yield file


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM join; elsewhere than in the main thread, where Python allows no handlers, it stays empty."""
    stop = list[int]()  # an Event's lock would meet itself when a second signal comes while the first one is handled
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda got, _: stop.append(got)) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
