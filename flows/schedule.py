"""The stages of one run: threads that wait for processes that work.

Around each stage there is a Prefect task where a flow is running; what is only for Prefect's UI is
in ``flows.prefect_view``, how processes are followed in ``flows.supervise``.
"""

import contextvars
import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import Any, Self
from prefect import Task, get_run_logger, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn
from flows import environment, pieces, records
from flows.prefect_view import PrefectView, ProgressArtifact
from flows.records import KeyedStage
from flows.result import Result
from flows.runners import Runner, check_installed, task_runner
from flows.supervise import Children
from shards.errors import ShardError, StoreError
from shards.progress import ProgressLine, console, parse_progress

WAITING_THREADS = 64
REDONE = list[str]()  # by this process, of what was to be refreshed
# of this process; a worker of Dask or Ray has none
_schedule: ContextVar["Schedule"] = ContextVar("schedule")


class Schedule:
    """Starts stages; a context manager that stops those that are left at its end.

    Args:
        out: folder of the pipeline, path or URL.
        refresh: names of stages that are done again though they are finished.
        jobs: stages at a time, as for ``Children``.
        stall: seconds without progress, as for ``Children``.
        runner: maps the pieces of a stage, in a flow.

    Raises:
        ShardError: The runner is not installed.
    """

    def __init__(
        self,
        out: str,
        refresh: Sequence[str] = (),
        *,
        jobs: int = 0,
        stall: float = 3600,
        runner: Runner = "threads",
    ) -> None:
        check_installed(runner)
        self._out = out
        self._refresh = refresh
        self._runner = runner
        self._lock = threading.Lock()
        self._pool: Any = None
        self._view = PrefectView()
        self._at_end = ExitStack()
        # what is entered last ends first: the bars, the processes, the pools, the threads
        self._threads = ThreadPoolExecutor(WAITING_THREADS)
        self.at_end(self._threads.shutdown, cancel_futures=True)
        self._pools = self._at_end.enter_context(ExitStack())
        self.children = Children(jobs, stall)
        self.at_end(self.children.stop)
        self._bars = self._at_end.enter_context(_bars())
        self.at_end(_schedule.reset, _schedule.set(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._at_end.__exit__(*error)

    def at_end(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Have a function called at the end, before all that is to be called so far."""
        self._at_end.callback(function, *arguments, **keywords)

    def start(
        self,
        name: str,
        work: str,
        inputs: Result,
        *,
        after: Future[Result] | None = None,
        alone: bool = False,
    ) -> Future[Result]:
        """The result of a stage to come.

        Args:
            name: of the stage.
            work: a name in ``flows.works.WORKS``.
            inputs: of the work.
            after: the stage whose folder is its cache.
            alone: whether it has the whole machine.
        """
        inputs = _with_plain_numbers(inputs)

        def begin() -> Result:
            complete = inputs | ({"cache": after.result()["url"]} if after else {})
            if not self._view.watched:
                return self.do(records.key_stage(self._out, name, work, complete), alone)[0]
            task_name = inputs.get("verb", work)
            # the record is the cache
            task = Task(show, cache_policy=NO_CACHE, name=task_name, task_run_name=name)
            # return_state: called plainly, a task that returned a state gives that, not its data
            state = task(self._out, name, work, complete, alone, return_state=True)
            result: Result = state.result()
            return result

        return self._threads.submit(contextvars.copy_context().run, begin)

    def do(self, stage: KeyedStage, alone: bool, log: Any = None) -> tuple[Result, bool]:
        """Do a stage unless it is finished.

        Args:
            stage: to do.
            alone: whether it has the whole machine.
            log: Prefect's logger of its task, if there is one.

        Returns:
            Its result, and whether it was finished before.

        Raises:
            ShardError: Another process has changed what the stage left.
        """
        tell = _Teller(stage.name, self._bars, self._view, log)
        result: Result | None = None
        with suppress(StoreError):  # its process tries for longer
            result = records.finished_result(stage)
        if result and self._is_to_be_redone(stage):
            # what such a one has only begun, it goes on with
            with records.locked(stage, 60):
                records.clear(stage)
            REDONE.append(stage.url)
            result = None
        was_finished = result is not None
        if was_finished:
            tell("finished before")
        else:
            if FlowRunContext.get():
                self._map_pieces(stage, tell)
            self.children.run("stage", [*stage], tell, alone=alone)
            result = records.finished_result(stage)
        if result is None:
            what = f"{stage.url} is not what {stage.name} has just left there"
            raise ShardError(f"{what}; look who else writes there, then run it again")
        records.link(stage)
        return result, was_finished

    def show_result(self, name: str, result: Result) -> None:
        """Show what a stage found in Prefect's UI."""
        self._view.show_result(name, result)

    def _is_to_be_redone(self, stage: KeyedStage) -> bool:
        """Whether it is among what is refreshed and was not redone before a restart."""
        if environment.was_redone(stage.url):
            return False
        for name in self._refresh:
            # voc is not voc-train, the set: stages of other encoders have longer names, sets do not
            of_that_name = stage.work != "build" and stage.name.startswith(f"{name}-")
            if stage.name == name or of_that_name:
                return True
        return False

    def _map_pieces(self, stage: KeyedStage, tell: Callable[[str], None]) -> None:
        """Do what can be done of a stage by the runner.

        Whatever fails there, the stage's own process does what is left, or waits for who else does
        it, or raises what cannot be mended.
        """
        inputs = stage.arguments()
        try:
            with records.locked(stage, 0):
                missing = pieces.missing_pieces(stage.work, stage.url, inputs)
                if len(missing) < 2:
                    return
                with self._lock:
                    # one for all: a process can have one Ray, and starting Dask takes seconds
                    if self._pool is None:
                        self._pool = self._pools.enter_context(task_runner(self._runner))
                fixed = {"work": stage.work, "out": stage.url, "inputs": inputs}
                parameters = {name: unmapped(value) for name, value in fixed.items()}
                futures = self._pool.map(_piece_task, parameters | {"piece": missing})
                futures.wait()  # or the stage's process meets one that writes
                futures.result()
        except Exception as error:
            tell(f"on its own: {error}")


# The functions of tasks are not decorated, and given JSON: a piece takes the tasks along to a
# worker, which finds functions by names.


def show(out: str, name: str, work: str, inputs: Result, alone: bool) -> Any:
    """Do a stage and show it in Prefect's UI."""
    schedule = _schedule.get()
    stage = records.key_stage(out, name, work, inputs)
    result, was_finished = schedule.do(stage, alone, get_run_logger())
    schedule.show_result(name, result)
    return Completed(name="Cached" if was_finished else "Completed", data=result)


def map_piece(work: str, out: str, inputs: Result, piece: Any) -> None:
    """Do a piece of a stage.

    What needs torch gets a process of its own here; a worker of Dask or Ray does it itself.
    """
    schedule = _schedule.get(None)
    if work == "features" and schedule:
        schedule.children.run("piece", [work, out, inputs, piece], console.print)
    else:
        pieces.do_piece(work, out, inputs, piece)


_piece_task = Task(map_piece, cache_policy=NO_CACHE, task_run_name="{work} {piece}")


class _Teller:
    """Tells the lines of a stage: to Prefect's log, if that shows them, else here.

    Progress is a bar on a terminal, and an artifact in Prefect's UI.

    Args:
        name: of the stage.
        bars: of all stages.
        view: of Prefect's UI.
        log: Prefect's logger of the stage's task, or None.
    """

    def __init__(self, name: str, bars: Progress, view: PrefectView, log: Any) -> None:
        self._name = name
        self._bars = bars
        self._log = log
        self._artifact = ProgressArtifact(view, name)
        self._bar: TaskID | None = None

    def __call__(self, text: str) -> None:
        if not text.strip():
            return
        line = parse_progress(text)
        if line and self._log:
            self._artifact.update(line, text)
        if line and self._bars.live.is_started:
            self._move_bar(line)
        elif self._log and self._log.isEnabledFor(logging.INFO):
            self._log.info(text)
        else:
            console.print(f"{self._name}: {text}", markup=False, soft_wrap=True)

    def _move_bar(self, line: ProgressLine) -> None:
        if self._bar is None:
            self._bar = self._bars.add_task("", total=line.total, status="")
        self._bars.update(
            self._bar,
            description=f"{self._name}: {line.title}",
            completed=line.completed,
            total=line.total,
            status=line.status,
        )
        if line.completed >= line.total:
            self._bars.remove_task(self._bar)
            self._bar = None


def _bars() -> Progress:
    """Progress bars of all stages, on a terminal."""
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        "{task.fields[status]}",
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _with_plain_numbers(inputs: Result) -> Result:
    """Inputs as JSON with numbers in one form: Prefect makes 100.0 of 100."""

    def number(text: str) -> int | float:
        value = float(text)
        return int(value) if value.is_integer() else value

    return dict(json.loads(json.dumps(inputs), parse_float=number))
