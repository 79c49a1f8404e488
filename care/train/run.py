"""A training in a directory: it restores, logs every step, saves, refuses other settings, stops."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
import torch
from torch import nn
from care.errors import CareError
from care.train import checkpoint, mirror, ranks
from care.train.disk import check_room, checkpoint_bytes
from care.train.loading import worker_count
from care.train.machine import Machine
from care.train.position import Position, position_of
from care.train.precision import Precision
from care.train.run_log import LOSSES, OnStep, opened_log
from care.train.run_status import clear_statuses, leave_word, write_status
from care.train.saver import Saver
from care.train.settings import (
    Settings,
    has_same_optimizer,
    refuse_other_settings,
    settings_of,
)
from care.train.signals import stop_requests
from care.train.step import Losses, Stepper
from care.train.stored import encoder_note
from shards import locks, storage
from shards.errors import Stopped
from shards.image_size import sides
from shards.progress import console, warn

Batch = TypeVar("Batch")
# the loader workers of a run that was killed hold its lock for seconds
LOCK_PATIENCE = 15


class Run:
    """What surrounds the loop of a training, as a context manager.

    Used by every process of the training. The first one writes the directory, and nobody else may
    meanwhile. On entering, its newest whole checkpoint is restored into model and optimizer. Then::

        with Run(path, model, optimizer, settings, title="training", precision="fp32") as run:
            for step, batch in run.through(batches(data, start=run.start)):
                set_rate(optimizer, lr_at(step, total=steps, base=0.1))
                terms = run.take_step(step, losses, batch)
                run.record(step, terms)

    Args:
        path: directory, or its URL; ``run.path`` is the local copy.
        model: on its device.
        optimizer: on the model's parameters.
        settings: JSON values that decide the result, ``steps``, ``batch_size`` and ``seed`` among
            them.
        title: what is said beside the progress.
        precision: of the arithmetic, by autocast.
        machine: what decides no result; its device is the model's.
        allow_change: settings that may differ from those of earlier calls, as for
            ``care.train.settings.allowed_settings``; None: the caller has no such option.
        threads: tells how many threads compute, once a checkpoint's are set; by default torch's
            number.
        images: of the set that is trained on, so that a run goes on where its images end when its
            batch size is changed; None where it has no epochs.
        example_bytes: of what is decoded of an image, by default that of two views of ``size``.
        on_step: is called on the process that writes, after each line of ``losses.jsonl``, with the
            step and the numbers of that line, ``images_per_second`` and ``data_wait``, the share of
            the time so far; it decides no result.

    Attributes:
        start: steps that were done before; where the batch size has changed, those that the images
            seen so far are in batches of this size.
        before: settings of the checkpoint that this run goes on from, empty of a new one.
        lead: whether this process writes.
        workers: processes to decode with.

    Raises:
        ShardError: Another process is training in the directory.
        CareError: The directory is one of other settings, its disk has no room for checkpoints, or
            processes see different ones. A call that is refused leaves all as it was.
    """

    def __init__(  # noqa: PLR0913
        self,
        path: str | Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        *,
        title: str,
        precision: Precision,
        machine: Machine = Machine(),
        allow_change: Sequence[str] | None = None,
        threads: Callable[[], int] = torch.get_num_threads,
        images: int | None = None,
        example_bytes: int | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.url = path
        self.path = mirror.local_copy(path)
        self.title = title
        self.model = model
        self.optimizer = optimizer
        # as they come back from a checkpoint
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.machine = machine
        self.precision = precision
        self.device = next(model.parameters()).device
        self.lead = ranks.rank() == 0
        self.before: Settings = {}
        self.workers = machine.workers or 0
        self._images = images
        self._example_bytes = example_bytes
        self._on_step = on_step
        self._position = Position()
        self._allow_change = allow_change
        self._is_admitted = False
        # of what a store has that was not reached
        self._is_ahead = False
        self._saver = Saver(path, self.path, machine.keep_every)
        self._threads = threads
        self._stepper = Stepper(optimizer, self.device, precision, self.settings["seed"])

    @property
    def start(self) -> int:
        """Steps that were done before, in batches of this size."""
        return self._position.start

    @property
    def autocast(self) -> torch.autocast:
        """The context in which the model computes in the run's precision."""
        return self._stepper.autocast

    def __enter__(self) -> "Run":
        ranks.limit_threads()
        with ExitStack() as stack:
            self._claim(stack)
            stack.push(self._leave_word)
            ranks.max_over_ranks(0)  # the others wait for what was fetched
            self._restore()
            if self.lead:
                steps = self.settings["steps"]
                size = checkpoint_bytes(self.model, self.optimizer)
                check_room(self.path, size, self.machine, start=self.start, steps=steps)
                clear_statuses(self.path)
            ranks.max_over_ranks(0)  # what the others say from here on is not removed
            self._is_admitted = True
            if self.lead and self._is_ahead:
                self._saver.push(self._position.taken)
            self._choose_workers()
            self._waited = 0.0
            self._stop_requests = stack.enter_context(stop_requests())
            if self.lead:
                self._begin_to_write(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def log(self) -> Path:
        """The file with a line of numbers for each step, on the process that writes."""
        return self.path / LOSSES

    def place_of(self, name: str) -> str | Path:
        """Where a file of the run is for everybody: its path, or its URL."""
        return f"{self.url}/{name}" if storage.is_remote(self.url) else self.path / name

    # the verbs of a loop

    def through(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on as they come, and measure how long the loop waits for them."""
        began = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    def take_step(self, step: int, losses: Losses, *parts: Sequence[Any]) -> dict[str, float]:
        """Compute the losses of a batch, and take the optimizer's step down their gradient.

        Args:
            step: its number, from 0 on.
            losses: scalars by name, of the arguments in a part. Minimised is their ``total``, or
                without one their sum.
            parts: arguments of ``losses``, of the whole batch or of the parts that it is cut into;
                the mean over them counts.

        Returns:
            The losses' values by name, with their ``total``.

        Raises:
            Diverged: A loss or the gradients are not finite.
        """
        return self._stepper.take(step, losses, parts)

    def record(
        self,
        step: int,
        terms: Mapping[str, float],
        more: Mapping[str, float] | None = None,
        *,
        note: str = "",
    ) -> None:
        """Log a step that was taken, and save where it is time to or a signal has come.

        Args:
            step: its number, from 0 on.
            terms: the losses' values by name.
            more: other numbers of the step for the log.
            note: is shown beside the progress.

        Raises:
            Stopped: A signal has come to any process, and steps are left; all is saved.
            CareError: The weights of the processes differ.
        """
        steps = self.settings["steps"]
        steps_done = step + 1
        steps_taken = steps_done + self._position.offset
        is_last = steps_done == steps
        stops = bool(ranks.max_over_ranks(len(self._stop_requests) > 0)[0])
        if self.lead:
            numbers = {**terms, "lr": self._rate(), **(more or {})}
            self._log.write(steps_taken - 1, numbers, self._waited, note)
        if steps_taken % self.machine.checkpoint_every == 0 or is_last or stops:
            ranks.check_equal_weights(self.model, step)
            if self.lead:
                self._save(steps_taken, waits=is_last or stops)
        if stops and not is_last:
            raise Stopped(
                f"stopped on request after step {steps_done} of {steps} and saved; "
                "the same command continues"
            )

    # entering

    def _claim(self, stack: ExitStack) -> None:
        """Keep others out, and bring the local copy to what is at the URL."""
        if self.lead:
            for place in sorted({str(self.url), str(self.path)}):
                lock = locks.exclusive(place, "training in", patience=LOCK_PATIENCE)
                self._saver.add_check(stack.enter_context(lock))
        is_first_of_its_machine = os.environ.get("LOCAL_RANK", str(ranks.rank())) == "0"
        if storage.is_remote(self.url) and is_first_of_its_machine:
            self._is_ahead = mirror.pull(self.url, self.path)

    def _restore(self) -> None:
        """Go back to the newest whole checkpoint, on all processes."""
        newest = checkpoint.latest(self.path)
        if newest is not None:
            before = settings_of(newest.manifest)
            refuse_other_settings(self.url, before, self.settings, self._allow_change)
            self.before = before
            self._restore_from(newest)
            scaler = newest.manifest["scaler"]
            if scaler:  # empty after another precision, which --allow-change admits
                self._stepper.scaler.load_state_dict(scaler)
            self._position = position_of(self.url, newest.manifest, self.settings, self._images)
            self._saver.trust(newest.step)
            if self.device.type == "cpu" and newest.manifest.get("world") == ranks.world():
                ranks.resume_threads(newest.manifest["threads"])
        if ranks.max_over_ranks(self.start, -self.start) != [self.start, -self.start]:
            raise CareError(
                f"the processes see different checkpoints in {self.url}; "
                "give a RUN that all machines share"
            )

    def _restore_from(self, newest: checkpoint.Checkpoint) -> None:
        """Take over weights, and what the optimizer keeps if it is of the same kind."""
        if has_same_optimizer(self.before, self.settings):
            checkpoint.restore(newest, self.model, self.optimizer)
            return
        checkpoint.restore(newest, self.model, None)
        if self.lead:
            warn(
                f"{self.url}: goes on by another optimizer, which begins without what the "
                "earlier one has kept"
            )

    def _choose_workers(self) -> None:
        """Settle how many processes decode, and say with what the steps that are left are taken."""
        steps_left = self.settings["steps"] - self.start
        pixels = sides(self.settings.get("size", 224)).pixels
        example_bytes = self._example_bytes or 2 * 3 * pixels  # two views of uint8
        images = self.settings["batch_size"] // ranks.world()
        self.workers = worker_count(
            self.machine.workers,
            self.device,
            batches=steps_left,
            batch_bytes=images * example_bytes,
            threads=self._threads(),
        )
        if self.lead and steps_left > 0:
            precision = self.settings.get("precision", self.precision)
            each = f" on each of {ranks.world()} processes" if ranks.world() > 1 else ""
            line = f"{self.title}: {self.device.type}, {precision}, "
            line += f"threads {self._threads()}, workers {self.workers}{each}"
            console.print(line, soft_wrap=True)

    def _begin_to_write(self, stack: ExitStack) -> None:
        """Open the logs, and say that the run is on."""
        self._log = stack.enter_context(
            opened_log(
                self.path,
                self.title,
                position=self._position,
                steps=self.settings["steps"],
                batch_size=self.settings["batch_size"],
                on_step=self._on_step,
            )
        )
        stack.enter_context(self._saver)
        steps = self.settings["steps"] + self._position.offset
        batch_size = self.settings["batch_size"]
        write_status(self.path, "running", steps=steps, batch_size=batch_size)

    # recording

    def _rate(self) -> float:
        rate: float = self.optimizer.param_groups[-1]["lr"]
        return rate

    def _save(self, steps_taken: int, *, waits: bool) -> None:
        """Save what there is now, or raise what went wrong with the checkpoint before."""
        manifest = {
            "step": steps_taken,
            "settings": self.settings,
            "scaler": self._stepper.scaler.state_dict(),
            "world": ranks.world(),
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "workers": self.workers,
            "encoder": encoder_note(self.model),
        }
        if self._position.offset:
            manifest["offset"] = self._position.offset
        self._saver.save(checkpoint.snapshot(self.model, self.optimizer), manifest, waits=waits)

    def _leave_word(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        leave_word(self.path, error, is_admitted=self._is_admitted)
        if self.lead and self._is_admitted:
            self._saver.put_status()
