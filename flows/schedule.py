"""The stages of one run: threads that wait for processes that work.

Around each stage there is a Prefect task where a flow is running; what is only for Prefect's UI is
in ``flows.prefect_view``, how processes are followed in ``flows.supervise``.
"""

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self
from prefect import Task, get_run_logger, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed
from flows import environment, pieces, records
from flows.cluster.stages import RayStages
from flows.execution import Execution
from flows.intentions import Intentions
from flows.prefect_view import PrefectView
from flows.records import KeyedStage
from flows.result import Result
from flows.runners import check_installed, stage_processes, task_runner
from flows.stages import Stage
from flows.telling import Teller
from shards.errors import ShardError, StoreError
from shards.progress import Bars, console

WAITING_THREADS = 64
REDONE = list[str]()  # by this process, of what was to be refreshed
# of this process; a worker of Dask has none
_schedule: ContextVar["Schedule"] = ContextVar("schedule")


class Schedule:
    """Starts stages; a context manager that stops those that are left at its end.

    Args:
        out: folder of the pipeline, path or URL.
        execution: how stages are run.

    Raises:
        ShardError: The runner is not installed, or its cluster does not answer.
    """

    def __init__(self, out: str, execution: Execution) -> None:
        check_installed(execution.runner)
        self._out = out.rstrip("/")
        self._execution = execution
        self._lock = threading.Lock()
        self._pool: Any = None
        self._view = PrefectView()
        self._futures = dict[str, Future[Result]]()
        self._intentions = Intentions(self._out)
        self._at_end = ExitStack()
        # what is entered last ends first: the bars, the processes, the pools, the threads, Ray
        start_processes = self._at_end.enter_context(stage_processes(execution.runner))
        self._threads = ThreadPoolExecutor(WAITING_THREADS)
        self.at_end(self._threads.shutdown, cancel_futures=True)
        self._pools = self._at_end.enter_context(ExitStack())
        self.children = start_processes(self._out, execution.jobs, 60 * execution.stall_minutes)
        self.at_end(self.children.stop)
        self._bars = self._at_end.enter_context(Bars(transient=True))
        self.at_end(_schedule.reset, _schedule.set(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._at_end.__exit__(*error)

    def at_end(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Have a function called at the end, before all that is to be called so far."""
        self._at_end.callback(function, *arguments, **keywords)

    def announce(self, stages: Sequence[Stage]) -> None:
        """Let ``care pipeline status`` know what is to come."""
        self._intentions.announce([stage.name for stage in stages])

    def run(self, stages: Sequence[Stage], *, keep_going: bool = False) -> dict[str, Result]:
        """Do stages side by side.

        Those that are exclusive come one after the other with all of the machine, unless together
        they fill it side by side, which wastes less.

        Args:
            stages: what they need is among them, or was started before.
            keep_going: whether those that fail do not stop the others.

        Returns:
            Their results by name, in the order of ``stages``.
        """
        one_by_one = self._are_one_by_one([stage for stage in stages if stage.exclusive])
        futures = dict[str, Future[Result]]()
        for stage in sorted(stages, key=lambda stage: stage.rank):
            alone = stage.exclusive and one_by_one
            futures[stage.name] = self.start(stage, alone=alone)
            if alone:
                futures[stage.name].result()  # a failure ends the run before the next one
        if keep_going:
            wait(futures.values())
        return {stage.name: futures[stage.name].result() for stage in stages}

    def start(self, stage: Stage, *, alone: bool = False) -> Future[Result]:
        """The result of a stage to come; what it needs was started before.

        Args:
            stage: to do, unless it is finished.
            alone: whether it has the whole machine.
        """

        def begin() -> Result:
            inputs = self._execution.inputs_for(stage.work)
            inputs |= stage.resolved(lambda name: self._futures[name].result())
            again = stage.is_named_in(self._execution.refresh or ())
            if not self._view.watched:
                keyed = records.key_stage(self._out, stage.name, stage.work, inputs)
                return self.do(keyed, alone=alone, again=again)[0]
            # the record is the cache
            task = Task(show, cache_policy=NO_CACHE, name=stage.kind, task_run_name=stage.name)
            # return_state: called plainly, a task that returned a state gives that, not its data
            state = task(self._out, stage.name, stage.work, inputs, alone, again, return_state=True)
            result: Result = state.result()
            return result

        future = self._threads.submit(contextvars.copy_context().run, begin)
        self._futures[stage.name] = future
        return future

    def do(
        self, stage: KeyedStage, *, alone: bool, again: bool, log: Any = None
    ) -> tuple[Result, bool]:
        """Do a stage unless it is finished.

        Args:
            stage: to do.
            alone: whether it has the whole machine.
            again: whether it is done again though it is finished.
            log: Prefect's logger of its task, if there is one.

        Returns:
            Its result, and whether it was finished before.

        Raises:
            ShardError: Another process has changed what the stage left.
        """
        tell = Teller(stage.name, self._bars, self._view, log)
        self._intentions.begin(stage.name, Path(stage.url).name)
        result: Result | None = None
        with suppress(StoreError):  # its process tries for longer
            result = records.finished_result(stage)
        if result and again and not environment.was_redone(stage.url):
            # what such a one has only begun, it goes on with
            with records.locked(stage, 60):
                records.clear(stage)
            REDONE.append(stage.url)
            result = None
        was_finished = result is not None
        if was_finished:
            tell("finished before")
        else:
            if FlowRunContext.get() or isinstance(self.children, RayStages):
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

    def _are_one_by_one(self, exclusive: Sequence[Stage]) -> bool:
        """Whether stages that use all of the machine must not share it."""
        if not exclusive:
            return False
        return self._execution.nproc > 1 or not self.children.fill_the_cpu(len(exclusive))

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
                if isinstance(self.children, RayStages):
                    self.children.map_pieces(stage, missing)
                else:
                    self._map_by_prefect(stage, missing)
        except Exception as error:
            tell(f"on its own: {error}")

    def _map_by_prefect(self, stage: KeyedStage, missing: Sequence[Any]) -> None:
        """Do pieces of a stage by Prefect's threads here or Dask's workers, each a task."""
        with self._lock:
            # one for all: starting Dask takes seconds
            if self._pool is None:
                self._pool = self._pools.enter_context(task_runner(self._execution.runner))
        fixed = {"work": stage.work, "out": stage.url, "inputs": stage.arguments()}
        fixed["folder"] = str(Path.cwd())
        parameters = {name: unmapped(value) for name, value in fixed.items()}
        futures = self._pool.map(_piece_task, parameters | {"piece": missing})
        futures.wait()  # or the stage's process meets one that writes
        futures.result()


# The functions of tasks are not decorated, and given JSON: a piece takes the tasks along to a
# worker, which finds functions by names.


def show(out: str, name: str, work: str, inputs: Result, alone: bool, again: bool) -> Any:
    """Do a stage and show it in Prefect's UI."""
    schedule = _schedule.get()
    stage = records.key_stage(out, name, work, inputs)
    result, was_finished = schedule.do(stage, alone=alone, again=again, log=get_run_logger())
    schedule.show_result(name, result)
    return Completed(name="Cached" if was_finished else "Completed", data=result)


def map_piece(work: str, out: str, inputs: Result, piece: Any, folder: str) -> None:
    """Do a piece of a stage.

    What needs torch gets a process of its own here; a worker of Dask does it itself, in the folder
    below which the paths are.
    """
    schedule = _schedule.get(None)
    if schedule is None:
        with suppress(OSError):  # a node that has not that folder can do what is named by URLs
            os.chdir(folder)
    if work == "features" and schedule:
        schedule.children.run("piece", [work, out, inputs, piece], console.print)
    else:
        pieces.do_piece(work, out, inputs, piece)


_piece_task = Task(map_piece, cache_policy=NO_CACHE, task_run_name="{work} {piece}")
