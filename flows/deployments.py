"""The flows as deployments, which a Prefect server starts: by `serve` here, or by a pool's workers.

``prefect.yaml`` lists the same flows for ``prefect deploy --all``, as
``tests/flows/test_deployed_flows.py`` holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
import prefect
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import EntrypointType  # type: ignore[attr-defined]
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from flows.pipeline import care_pipeline
from flows.server import answers
from shards.errors import ShardError

DEFAULT_ADDRESS = "http://127.0.0.1:4200/api"  # where `prefect server start` listens


def flows_to_deploy() -> list[Flow[..., Any]]:
    """The pipeline, the grid of experiments, and each stage by itself."""
    # both import torch
    from flows.reproduce.flow import care_reproduce
    from flows.single import STAGES

    flows: list[Any] = [care_pipeline, care_reproduce, *STAGES]
    return flows


def serve() -> None:
    """Let the server of ``configured_server`` start the flows in this folder, until Ctrl-C."""
    prefect.serve(*_deployments())


def deploy(pool: str) -> Iterator[str]:
    """Deploy the flows to a pool of ``configured_server``, whose workers run them in this folder.

    Args:
        pool: made as one of processes, where there is none of that name.

    Yields:
        The name of each deployment, once the server knows it.
    """
    with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    here = {"working_dir": str(Path.cwd())}
    for deployment in _deployments(work_pool_name=pool, job_variables=here):
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


def _deployments(**settings: Any) -> list[Any]:
    """A deployment of each flow, found by its module wherever a worker has the package."""
    return [
        flow.to_deployment(flow.name, entrypoint_type=EntrypointType.MODULE_PATH, **settings)
        for flow in flows_to_deploy()
    ]
