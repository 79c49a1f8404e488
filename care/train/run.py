"""A training in a directory: continues from its last checkpoint, logs every step, saves, refuses other settings, stops cleanly."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any
import numpy as np
import torch
from torch import Tensor, nn
from care.errors import CareError, Diverged
from care.train import checkpoint, mirror, ranks
from care.train.loading import worker_count
from care.train.precision import Precision, autocast, seeded
from shards import ShardError, locks, storage
from shards.errors import Failure, Stopped
from shards.terminal import console, progress


class Run:
    """What surrounds the steps of a training; used as a context manager around the loop, by every process of it.

    The first process writes ``path``, a directory or URL (``run.path`` is its local copy), and nobody else may meanwhile: a ``ShardError``.
    On entering, its newest whole checkpoint is restored into ``model``, on its device, and the SGD ``optimizer``; ``start`` is its step.
    ``settings`` are JSON values, ``steps``, ``batch_size`` and ``seed`` among them: one that differs from the earlier calls' and is not in
    ``allow_change`` is a ``CareError``. Every ``checkpoint_every`` steps all is saved in the background; one every ``keep_every`` stays.
    After entering, ``run.workers`` are the processes to decode with: ``workers``, or for None what is best here. ``threads`` tells how
    many threads compute, once a checkpoint's are set; by default torch's number.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
        *,
        title: str,
        precision: Precision,
        checkpoint_every: int,
        keep_every: int = 0,
        allow_change: Sequence[str] = (),
        workers: int | None = 0,
        threads: Callable[[], int] | None = None,
    ) -> None:
        self.url, self.path, self.title, self.allow_change = (
            path,
            mirror.local_copy(path),
            title,
            allow_change,
        )
        self.model, self.optimizer, self.settings = (
            model,
            optimizer,
            json.loads(json.dumps(settings)),
        )
        self.every, self.keep_every, self.start, self.lead = (
            checkpoint_every,
            keep_every,
            0,
            ranks.rank() == 0,
        )
        self.device, self.precision, self.workers = (
            next(model.parameters()).device,
            precision,
            workers or 0,
        )
        self._workers_wanted, self._threads = workers, threads or torch.get_num_threads
        self.autocast, self.scaler = (
            autocast(self.device, precision),
            torch.amp.GradScaler(self.device.type, enabled=precision == "fp16"),
        )

    def __enter__(self) -> "Run":
        ranks.limit_threads()
        with ExitStack() as stack:
            for place in (
                sorted({str(self.url), str(self.path)}) if self.lead else ()
            ):  # a killed run's loader workers hold it for seconds
                stack.enter_context(locks.exclusive(place, "training in", patience=15))
            if (
                storage.is_remote(self.url)
                and os.environ.get("LOCAL_RANK", str(ranks.rank())) == "0"
            ):  # one on each machine
                mirror.pull(self.url, self.path)
            for old in self.path.glob("status*.json") if self.lead else ():
                old.unlink()
            stack.push(self._tell)
            ranks.max_over_ranks(0)  # the others wait for what was fetched
            self._restore()
            if ranks.max_over_ranks(self.start, -self.start) != [self.start, -self.start]:
                raise CareError(
                    f"the processes see different checkpoints in {self.url}; give a RUN that all machines share"
                )
            self._choose_workers()
            steps, images = self.settings["steps"], self.settings["batch_size"]
            # signals, which Python handles in the main thread alone, join a list: an Event's lock would meet itself in a second signal
            self._stop, self._began, self._waited = list[int](), time.monotonic(), 0.0
            for number in (
                (signal.SIGINT, signal.SIGTERM)
                if threading.current_thread() is threading.main_thread()
                else ()
            ):
                stack.callback(
                    signal.signal,
                    number,
                    signal.signal(number, lambda got, _: self._stop.append(got)),
                )
            if self.lead:
                logs = [self.path / f"{name}.jsonl" for name in ("losses", "timing")]
                for log in logs:  # without the lines of steps that will be done again
                    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
                    storage.write_bytes(log, "".join(lines[: self.start]).encode())
                self._losses, self._timing = (
                    stack.enter_context(log.open("a", buffering=1)) for log in logs
                )  # always whole lines
                self._advance = stack.enter_context(
                    progress(self.title, steps * images, start=self.start * images)
                )
                self._writer = stack.enter_context(
                    ThreadPoolExecutor(1)
                )  # saves in the background, one checkpoint at a time
                self._written: Future[None] | None = None
                self._status("running")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def steps(
        self,
        batches: Iterable[Any],
        losses: Callable[..., Mapping[str, Tensor]],
        lr: Callable[[int], float],
        note: str,
        *,
        cut: Callable[[Any], Sequence[Any]] = lambda batch: [batch],
        then: Callable[[int, dict[str, float]], Mapping[str, float]] = lambda *_: {},
    ) -> None:
        """Take the steps from ``start`` on, a batch each, at learning rates of ``initial_lr`` times ``lr(step)``.

        Minimised is the mean over the parts into which ``cut`` takes a batch of ``losses(*part)``, of their ``total`` or else their sum.
        ``then``, after the optimizer, gets the step and the losses' values; what it returns is logged with them and ``note``.
        """
        began = time.monotonic()
        for step, batch in enumerate(batches, self.start):
            self._waited += time.monotonic() - began
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * lr(step)
            while True:
                parts, sums = cut(batch), torch.zeros((), dtype=torch.float64, device=self.device)
                with seeded(self.settings["seed"], step, self.device):
                    for number, part in enumerate(parts, 1):
                        # gradients of all processes are averaged once, with the last part
                        alone = (
                            getattr(losses, "no_sync", nullcontext)
                            if number < len(parts)
                            else nullcontext
                        )
                        with alone(), self.autocast:
                            found = losses(*part)
                        total = (
                            found["total"]
                            if "total" in found
                            else torch.stack([*found.values()]).sum()
                        )
                        torch.autograd.backward(self.scaler.scale(total / len(parts)))
                        found = {
                            name: value.detach().double()
                            for name, value in {**found, "total": total}.items()
                        }
                        sums = sums + torch.stack([*found.values()]) / len(parts)
                terms = dict(zip(found, sums.tolist(), strict=True))
                if self.update(step, terms):
                    break
            self.commit(step, terms, note, then(step, terms))
            began = time.monotonic()

    def update(self, step: int, terms: dict[str, float]) -> bool:
        """One step of the optimizer, or a ``CareError`` if a term is not finite; false if float16 overflowed: try again, scaled less."""
        for name, value in terms.items():
            if not np.isfinite(value):
                raise Diverged(
                    f"the {name} loss is {value} at step {step}; lower lr or lengthen warmup, then start a new run directory"
                )
        scale, fresh = self.scaler.get_scale(), not self.optimizer.state
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if (now := self.scaler.get_scale()) < 2**-20:
            raise Diverged(
                f"the gradients are not finite at step {step}, whatever the loss scale; lower lr, or use --precision bf16"
            )
        if now < scale and fresh:
            self.optimizer.state.clear()  # fused SGD has made its buffers, and left them as they were in memory
        return now >= scale

    def commit(
        self, step: int, terms: dict[str, float], note: str, probed: Mapping[str, float]
    ) -> None:
        """Log a step, and save when it is time to; ``Stopped`` after a signal to any process, a ``CareError`` if their weights differ."""
        done, steps = step + 1, self.settings["steps"]
        stop = bool(ranks.max_over_ranks(bool(self._stop))[0])
        if self.lead:
            seconds = time.monotonic() - self._began
            self._losses.write(
                json.dumps(
                    {"step": step, **terms, "lr": self.optimizer.param_groups[-1]["lr"], **probed}
                )
                + "\n"
            )
            self._timing.write(
                json.dumps(
                    {
                        "step": step,
                        "seconds": round(seconds, 3),
                        "data_wait": round(self._waited, 3),
                    }
                )
                + "\n"
            )
            self._advance(
                self.settings["batch_size"],
                f"{note.format(**terms)} data_wait {100 * self._waited / seconds:.0f} %",
            )
        if done % self.every == 0 or done == steps or stop:
            weights = [p.detach() for p in self.model.parameters()] if ranks.world() > 1 else []
            sums = [
                float(sum(p.sum(dtype=torch.float64) for p in weights)),
                float(sum(p.double().square().sum() for p in weights)),
            ]
            if ranks.max_over_ranks(*(both := [*sums, *(-value for value in sums)])) != both:
                raise CareError(
                    f"the processes' weights differ after step {step}; check the machines, then give the command again"
                )
            if self.lead:
                if self._written:
                    self._written.result()  # raises what went wrong in the background
                manifest = {
                    "step": done,
                    "settings": self.settings,
                    "scaler": self.scaler.state_dict(),
                    "world": ranks.world(),
                    "threads": torch.get_num_threads(),
                    "precision": self.precision,
                    "workers": self.workers,
                }
                self._written = self._writer.submit(
                    self._save,
                    checkpoint.snapshot(self.model, self.optimizer),
                    manifest,
                )
                if stop or done == steps:
                    self._written.result()
        if stop and done < steps:
            raise Stopped(
                f"stopped on request after step {done} of {steps} and saved; the same command continues"
            )

    def _save(self, state: dict[str, dict[str, Tensor]], manifest: dict[str, Any]) -> None:
        checkpoint.save(self.path, state, manifest, keep_every=self.keep_every)
        if storage.is_remote(self.url):
            mirror.push(self.path, str(self.url))

    def _restore(self) -> None:
        if (found := checkpoint.latest(self.path)) is None:
            return
        before = _in_todays_words(found.manifest["settings"])
        allowed = {
            *self.allow_change,
            *(["t_precision"] if "precision" in self.allow_change else []),
        }
        for field in self.settings | before:  # what is asked for first is told first
            if field not in allowed and (was := before.get(field)) != (
                now := self.settings.get(field)
            ):
                advice = f"repeat the first call's settings, allow the change (--allow-change {field}), or choose a new run directory"
                raise CareError(
                    f"{self.url} was trained with {field}={was}, this call has {field}={now}; {advice}"
                )
        checkpoint.restore(found, self.model, self.optimizer)
        if found.manifest["scaler"]:  # empty after another precision, which --allow-change admits
            self.scaler.load_state_dict(found.manifest["scaler"])
        self.start = found.step
        if self.device.type == "cpu" and found.manifest.get("world") == ranks.world():
            ranks.resume_threads(found.manifest["threads"])

    def _choose_workers(self) -> None:
        """Settle how many processes decode, and say with what the steps that are left are taken."""
        steps_left = self.settings["steps"] - self.start
        side = self.settings.get("size", 224)
        images = self.settings["batch_size"] // ranks.world()
        batch_bytes = images * 2 * 3 * side**2  # two views of uint8
        self.workers = worker_count(
            self._workers_wanted,
            self.device,
            batches=steps_left,
            batch_bytes=batch_bytes,
            threads=self._threads(),
        )
        if self.lead and steps_left > 0:
            precision = self.settings.get("precision", self.precision)
            each = f" on each of {ranks.world()} processes" if ranks.world() > 1 else ""
            line = f"{self.title}: {self.device.type}, {precision}, "
            line += f"threads {self._threads()}, workers {self.workers}{each}"
            console.print(line, soft_wrap=True)

    def _status(self, state: str, message: str = "") -> None:
        own = "" if self.lead else f"-{ranks.rank()}"
        storage.write_json(self.path / f"status{own}.json", {"state": state, "message": message})

    def _tell(self, kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Leave how the run ended for whoever started it; what is no error of ours counts as a crash: the state stays ``running``."""
        if isinstance(error, Failure):
            with suppress(ShardError):  # a full disk, which is what is told already
                self._status("stopped" if isinstance(error, Stopped) else "failed", str(error))
        elif error is None and self.lead:
            self._status("done")


def _in_todays_words(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run, with those that were not recorded before version 0.2."""
    if "t_stream" not in settings or "attention" in settings:
        return settings
    heads = "4 heads of 128" if settings["t_stream"] else None  # whatever the encoder was
    return settings | {"attention": heads, "t_precision": settings["precision"]}
