"""The pipeline as a deployment with parameters and a schedule of its own."""

import pytest
from prefect.client.schemas.schedules import CronSchedule
from flows import deployments
from flows.flatten import flat_parameters
from flows.pipeline import care_pipeline
from shards.errors import Misuse, ShardError

DEFAULTS = {name: value.default for name, value in flat_parameters(care_pipeline.fn).items()}


def deployed(monkeypatch, pipeline):
    """What would be served, by name."""
    served = []
    monkeypatch.setattr(
        deployments.prefect, "serve", lambda *all_of_them: served.extend(all_of_them)
    )
    monkeypatch.setattr(deployments, "miss_heartbeats", lambda: None)
    deployments.serve(pipeline)
    return {deployment.name: deployment for deployment in served}


def test_a_schedule_is_the_pipelines_alone(monkeypatch, tmp_path):
    options = DEFAULTS | {"out": str(tmp_path / "lab"), "seed": 3, "labels": (0.5,)}
    pipeline = deployments.scheduled_pipeline(options, "0 3 * * *", "Europe/Berlin")
    by_name = deployed(monkeypatch, pipeline)
    schedules = {name: deployment.schedules for name, deployment in by_name.items()}
    (schedule,) = schedules.pop("care-pipeline")
    assert schedule.schedule == CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")
    assert not any(schedules.values())
    want = {"out": str(tmp_path / "lab"), "seed": 3, "labels": [0.5]}
    assert by_name["care-pipeline"].parameters == want


def test_without_options_nothing_is_scheduled_and_all_has_its_defaults(monkeypatch):
    pipeline = deployments.scheduled_pipeline(DEFAULTS, None, "UTC")
    assert pipeline == ({}, None)
    by_name = deployed(monkeypatch, pipeline)
    assert len(by_name) == len(deployments.flows_to_deploy())
    assert not any(deployment.schedules for deployment in by_name.values())


@pytest.mark.parametrize(
    ("cron", "timezone", "why"),
    [
        ("every night", "UTC", "Invalid cron"),
        ("0 3 * *", "UTC", "Invalid cron"),
        ("61 3 * * *", "UTC", "Invalid cron"),
        ("", "UTC", "Invalid cron"),
        ("0 3 * * *", "Berlin", "Invalid timezone"),
    ],
)
def test_what_is_no_schedule_is_refused_before_a_server_is_asked(cron, timezone, why):
    with pytest.raises(Misuse, match=rf"wanted a schedule such as --cron '0 3 .*got .*{why}"):
        deployments.scheduled_pipeline(DEFAULTS, cron, timezone)


def test_images_that_are_not_there_are_told_before_the_first_night(tmp_path):
    options = DEFAULTS | {"images": str(tmp_path / "nothing")}
    with pytest.raises(ShardError, match="nothing"):
        deployments.scheduled_pipeline(options, "0 3 * * *", "UTC")
