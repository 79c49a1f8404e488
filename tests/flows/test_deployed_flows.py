"""What is deployed, without a server: `test_deployments.py` has one."""

import inspect
from pathlib import Path
import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
from flows.deployments import flows_to_deploy

FILE = yaml.safe_load(Path(__file__).parents[2].joinpath("prefect.yaml").read_text())
FLOWS = {flow.name: flow for flow in flows_to_deploy()}


def test_the_project_file_lists_the_flows_that_serve_and_deploy_have() -> None:
    listed = {entry["name"]: import_object(entry["entrypoint"]) for entry in FILE["deployments"]}
    assert listed == FLOWS
    assert "care-reproduce" in FLOWS


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_a_form_can_be_made_of_a_flow(flow: Flow) -> None:
    schema = parameter_schema(flow.fn)
    assert [*schema.properties] == [*inspect.signature(flow.fn).parameters]
    assert flow.fn.__doc__


def test_what_a_form_of_the_grid_gives_is_what_the_flow_takes() -> None:
    filled = {"arms": ["care"], "seeds": [1, 2], "labels": [0.1], "images": None}
    got = FLOWS["care-reproduce"].validate_parameters(filled)
    assert got["arms"] == ("care",)
    assert got["seeds"] == (1, 2)
    assert got["labels"] == (0.1,)
