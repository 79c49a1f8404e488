"""Runs whose process is gone do not stay Running: who misses their heartbeats says Crashed.

A flow tells its server every three minutes that it goes on (``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``).
A process that is killed cannot say so; the server's automation below does.
Tests: ``tests/flows/test_heartbeats.py`` and ``test_deployments.py``.
"""

from datetime import timedelta
from httpx import HTTPError
from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.events import ResourceSpecification
from shards.progress import warn

NAME = "care: a run whose process is gone is crashed"
# of silence: three heartbeats of Prefect's own frequency, which the workers of a pool have whatever
# the process says that makes the automation, and a minute
PATIENCE = timedelta(seconds=600)


def miss_heartbeats() -> None:
    """Have the configured server call silent runs of our flows crashed, if it does not already.

    A server that does not let us is told of, and all goes on.
    """
    try:
        with get_client(sync_client=True) as client:
            if not client.read_automations_by_name(name=NAME):
                client.create_automation(automation())
    except HTTPError as error:
        reason = str(error).splitlines()[0]
        warn(f"the server took no automation ({reason}): runs that are killed stay Running there")


def automation() -> AutomationCore:
    """What the server is asked to do: of every run of our flows, alone of those that had begun."""
    return AutomationCore(
        name=NAME,
        description="made by care pipeline; the files of the run are whole, give its command again",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": "care-*"}
            ),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            # the next heartbeat, or whatever state the run has ended in
            expect={"prefect.flow-run.*"},
            within=PATIENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"no heartbeat for {PATIENCE.seconds} s: its process is gone",
                force=False,
            )
        ],
    )
