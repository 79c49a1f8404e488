"""The flows as deployments, which a Prefect server starts: by `serve` here, or by a pool's workers.

``prefect.yaml`` lists the same flows for ``prefect deploy --all``, as
``tests/flows/test_deployed_flows.py`` holds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
import prefect
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import EntrypointType  # type: ignore[attr-defined]
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError
from flows.flatten import flat_parameters
from flows.heartbeats import miss_heartbeats
from flows.pipeline import care_pipeline
from flows.plan import experiment_of_options
from flows.server import answers
from shards.errors import Misuse, ShardError

DEFAULT_ADDRESS = "http://127.0.0.1:4200/api"  # where `prefect server start` listens


def flows_to_deploy() -> list[Flow[..., Any]]:
    """The pipeline, the grid of experiments, and each stage by itself."""
    # both import torch
    from flows.reproduce.flow import care_reproduce
    from flows.single import STAGES

    flows: list[Any] = [care_pipeline, care_reproduce, *STAGES]
    return flows


class ScheduledPipeline(NamedTuple):
    """What the deployment of the pipeline runs, and when.

    Attributes:
        parameters: of ``care_pipeline``, those that are not its defaults.
        schedule: when it is started without being asked; None: never.
    """

    parameters: Mapping[str, Any]
    schedule: Schedule | None


def scheduled_pipeline(
    options: Mapping[str, Any], cron: str | None, timezone: str
) -> ScheduledPipeline:
    """Check what the pipeline's deployment is to run, before a server is asked.

    Args:
        options: parameters of ``care_pipeline``.
        cron: when, such as ``0 3 * * *`` for three o'clock every night; None: when it is asked.
        timezone: that of ``cron``, such as ``Europe/Berlin``.

    Raises:
        Misuse: ``cron`` or ``timezone`` is none, or the options do not go together.
        ShardError: There are no images where they are said to be.
    """
    defaults = flat_parameters(care_pipeline.fn)
    parameters = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value != defaults[name].default
    }
    schedule = None
    if cron is not None:
        try:
            # the deployment would check it, too, but after a server was asked
            CronSchedule(cron=cron, timezone=timezone)
        except ValidationError as error:
            raise Misuse(
                f"wanted a schedule such as --cron '0 3 * * *' (minute, hour, day, month, weekday) "
                f"in a time zone such as Europe/Berlin, got {cron!r} in {timezone!r}: "
                f"{error.errors()[0]['msg']}"
            ) from None
        schedule = Cron(cron, timezone=timezone)
    if parameters:
        experiment_of_options(options)
    return ScheduledPipeline(parameters, schedule)


def serve(pipeline: ScheduledPipeline) -> None:
    """Let the server of ``configured_server`` start the flows in this folder, until Ctrl-C.

    Args:
        pipeline: what the pipeline's deployment runs, and when.
    """
    miss_heartbeats()
    prefect.serve(*_deployments(pipeline))


def deploy(pool: str, pipeline: ScheduledPipeline) -> Iterator[str]:
    """Deploy the flows to a pool of ``configured_server``, whose workers run them in this folder.

    Args:
        pool: made as one of processes, where there is none of that name.
        pipeline: what the pipeline's deployment runs, and when.

    Yields:
        The name of each deployment, once the server knows it.
    """
    miss_heartbeats()
    with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    here = {"working_dir": str(Path.cwd())}
    for deployment in _deployments(pipeline, work_pool_name=pool, job_variables=here):
        deployment.apply()
        yield f"{deployment.flow_name}/{deployment.name}"


@contextmanager
def configured_server() -> Iterator[str]:
    """The address of the configured Prefect server, or of one at Prefect's own port.

    Raises:
        ShardError: It does not answer.
    """
    address = PREFECT_API_URL.value() or DEFAULT_ADDRESS
    if not answers(address):
        raise ShardError(
            f"no Prefect server answers at {address}; start one with: prefect server start,"
            " or set PREFECT_API_URL"
        )
    with temporary_settings({PREFECT_API_URL: address}):
        yield address


def _deployments(pipeline: ScheduledPipeline, **settings: Any) -> list[Any]:
    """A deployment of each flow, found by its module wherever a worker has the package."""
    deployments = list[Any]()
    for flow in flows_to_deploy():
        scheduled: dict[str, Any] = {}
        if flow is care_pipeline:
            scheduled = {"parameters": dict(pipeline.parameters), "schedule": pipeline.schedule}
        deployments.append(
            flow.to_deployment(
                flow.name, entrypoint_type=EntrypointType.MODULE_PATH, **settings, **scheduled
            )
        )
    return deployments
