"""The stages of one run: threads that wait for processes that work, and around each a Prefect task where a flow is running."""

import base64
import contextvars
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, Literal
from prefect import Task, artifacts, get_run_logger, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from flows import environment, records
from flows.records import Stage
from flows.result import Result
from flows.supervise import Children
from shards import storage
from shards.cores import available_cores
from shards.errors import ShardError, StoreError
from shards.terminal import LINE, console

Runner = Literal["threads", "dask", "ray"]
REDONE = list[str]()  # by this process, of what was to be refreshed
_chain: ContextVar["Chain"] = ContextVar("chain")  # of this process; a Dask or Ray worker has none


class Chain(ExitStack):
    """Starts stages below ``out``, as a context manager that stops those that are left at its end; ``refresh`` names what is done again.

    ``jobs`` and ``stall`` are those of ``Children``; ``runner`` maps the pieces of a stage, in a flow.
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
        super().__init__()
        if runner != "threads" and not find_spec(f"prefect_{runner}"):
            raise ShardError(
                f"the {runner} runner is not installed; pip install 'care-ssl[{runner}]'"
            )
        self._out, self._refresh, self._runner, self._threads = (
            out,
            refresh,
            runner,
            ThreadPoolExecutor(64),
        )  # which only wait
        self.callback(self._threads.shutdown, cancel_futures=True)
        self._lock, self._pools = threading.Lock(), self.enter_context(ExitStack())
        self._pool: Any = None
        self._watched = FlowRunContext.get() is not None
        self.children = Children(jobs, stall)
        self.callback(self.children.stop)
        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            "{task.fields[status]}",
        )
        self._bars = self.enter_context(
            Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        )
        self.callback(_chain.reset, _chain.set(self))

    def start(
        self,
        name: str,
        work: str,
        inputs: Result,
        *,
        after: Future[Result] | None = None,
        alone: bool = False,
    ) -> Future[Result]:
        """The result of a stage to come: ``work``, a function in ``flows.stages``, with ``inputs``.

        ``after`` is the stage whose folder is its cache; ``alone``, it has the whole machine.
        """
        # numbers have one form: Prefect makes 100.0 of 100
        given = json.loads(
            json.dumps(inputs),
            parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text),
        )

        def begin() -> Result:
            whole = given | ({"cache": after.result()["url"]} if after else {})
            if not self._watched:
                return self.do(records.stage(self._out, name, work, whole), alone)[0]
            of_prefect = Task(
                show, cache_policy=NO_CACHE, name=given.get("verb", work), task_run_name=name
            )  # the record is the cache
            # return_state: called plainly, a task that returned a state gives that state, not its data
            done: Result = of_prefect(
                self._out, name, work, whole, alone, return_state=True
            ).result()
            return done

        return self._threads.submit(contextvars.copy_context().run, begin)

    def do(self, one: Stage, alone: bool, log: Any = None) -> tuple[Result, bool]:
        """The result of a stage, and whether it was there."""
        tell, done = _Teller(one.name, self._bars, log, self.ui), None
        # voc is not voc-train, the set: those of other encoders and shares have longer names, sets do not
        again = any(
            one.name == name or (one.work != "build" and one.name.startswith(f"{name}-"))
            for name in self._refresh
        )
        again = again and not environment.was_redone(one.url)
        with suppress(StoreError):  # its process tries for longer
            done = records.found(one)
        if done and again:  # what such a one has only begun, it goes on with
            with records.locked(one, 60):
                records.clear(one)
            REDONE.append(one.url)
            done = None
        if cached := done is not None:
            tell("finished before")
        else:
            if FlowRunContext.get():
                self._map(one, tell)
            self.children.run("stage", [*one], tell, alone=alone)
            if (done := records.found(one)) is None:
                raise ShardError(
                    f"{one.url} is not what {one.name} has just left there; look who else writes there, then run it again"
                )
        records.link(one)
        return done, cached

    def ui(self, artifact: Callable[..., Any], *what: Any, **more: Any) -> Any:
        """An artifact in Prefect's UI; after one that failed no other, since each would wait for a server that is gone."""
        more |= {"key": re.sub("[^a-z0-9]", "-", more["key"].lower())} if "key" in more else {}
        try:
            return artifact(*what, **more) if self._watched else None
        except Exception:  # whatever it is, the chain goes on
            self._watched = False
            return None

    def _map(self, one: Stage, tell: Callable[[str], None]) -> None:
        try:
            with records.locked(one, 0):
                if len(parts := records.pieces(one.work, one.url, one.arguments())) > 1:
                    with (
                        self._lock
                    ):  # one for all: a process can have one Ray, and starting Dask takes seconds
                        self._pool = self._pool or self._pools.enter_context(_pool(self._runner))
                    same = {
                        name: unmapped(value)
                        for name, value in (
                            ("work", one.work),
                            ("out", one.url),
                            ("inputs", one.arguments()),
                        )
                    }
                    (
                        futures := self._pool.map(_piece, same | {"number": parts})
                    ).wait()  # or the stage's process meets one that writes
                    futures.result()
        except Exception as error:  # its own process does what is left, or waits for who else does it, or raises what cannot be mended
            tell(f"on its own: {error}")


# The functions of tasks are not decorated, and given JSON: a piece takes the tasks along to a worker, which finds functions by names.


def show(out: str, name: str, work: str, inputs: Result, alone: bool) -> Any:
    """Do a stage and show it in Prefect's UI."""
    chain = _chain.get()
    done, cached = chain.do(records.stage(out, name, work, inputs), alone, get_run_logger())
    place, said = done.get("url"), done["text"]
    if counts := done.get("counts"):
        table = [{"files": part, "count": count} for part, count in counts.items()]
        chain.ui(
            artifacts.create_table_artifact,
            table,
            key=f"{name}-files",
            description=f"{place}: {said}",
        )
    if text := done.get("markdown"):
        chain.ui(
            artifacts.create_markdown_artifact,
            text,
            key=f"{name}-results",
            description=f"measured here: {said}",
        )
    if "report.html" in done.get("outputs", {}):
        link = f"[{place}/report.html]({place}/report.html)"
        chain.ui(
            artifacts.create_markdown_artifact,
            link,
            key=f"{name}-page",
            description="the report: open it in a browser",
        )
        picture = (
            "data:image/png;base64,"
            + base64.b64encode(storage.read_bytes(f"{place}/maps.png")).decode()
        )
        chain.ui(
            artifacts.create_image_artifact,
            picture,
            key=f"{name}-maps",
            description="where the encoders look",
        )
    return Completed(name="Cached" if cached else "Completed", data=done)


def do_piece(work: str, out: str, inputs: Result, number: Any) -> None:
    """``records.piece``; here, not on a worker of Dask or Ray, what needs torch in a process of its own."""
    if work == "features" and (chain := _chain.get(None)):
        chain.children.run("piece", [work, out, inputs, number], console.print)
    else:
        records.piece(work, out, inputs, number)


_piece = Task(do_piece, cache_policy=NO_CACHE, task_run_name="{work} {number}")


class _Teller:
    """Tells a stage's lines: to Prefect's log, if that shows them, else here; progress as a bar on a terminal, and in Prefect's UI."""

    def __init__(self, name: str, bars: Progress, log: Any, ui: Callable[..., Any]) -> None:
        self._name, self._bars, self._log, self._ui, self._next = name, bars, log, ui, 0.0
        self._bar: Any = None
        self._artifact: Any = None

    def __call__(self, line: str) -> None:
        if not line.strip():
            return
        if moved := LINE.fullmatch(line):
            title, done, total, status = moved[1], int(moved[2]), int(moved[3]), moved[4]
            if self._log and (time.monotonic() >= self._next or done == total):
                self._next = time.monotonic() + 5
                per_cent = 100 * done / max(total, 1)
                if self._artifact is None:
                    key = f"{self._name}-progress"
                    self._artifact = self._ui(
                        artifacts.create_progress_artifact, per_cent, key=key, description=line
                    )
                else:
                    self._ui(
                        artifacts.update_progress_artifact,
                        self._artifact,
                        per_cent,
                        description=line,
                    )
            if self._bars.live.is_started:
                if self._bar is None:
                    self._bar = self._bars.add_task("", total=total, status="")
                self._bars.update(
                    self._bar,
                    description=f"{self._name}: {title}",
                    completed=done,
                    total=total,
                    status=status,
                )
                if done >= total:
                    self._bars.remove_task(self._bar)
                    self._bar = None
                return
        if self._log and self._log.isEnabledFor(logging.INFO):
            self._log.info(line)
        else:
            console.print(f"{self._name}: {line}", markup=False, soft_wrap=True)


def _pool(runner: Runner) -> Any:
    # All on this machine and on its loopback, unless the environment names a cluster.
    cores = available_cores()
    if runner == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        logging.getLogger("distributed").setLevel(logging.WARNING)
        local: dict[str, Any] = {
            "n_workers": cores,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            "dashboard_address": "127.0.0.1:0",
        }
        local["scheduler_kwargs"] = {"dashboard": False}  # whose import fails now and then
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        return DaskTaskRunner(address=address) if address else DaskTaskRunner(cluster_kwargs=local)
    if runner == "ray":
        if not (address := os.environ.get("RAY_ADDRESS")):
            os.environ |= {
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "RAY_USAGE_STATS_ENABLED": "0",
            }  # loopback alone; tells nobody
        from prefect_ray.task_runners import RayTaskRunner

        return (
            RayTaskRunner(address=address)
            if address
            else RayTaskRunner(init_kwargs={"num_cpus": cores, "include_dashboard": False})
        )
    return ThreadPoolTaskRunner(max_workers=cores)
