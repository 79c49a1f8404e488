"""What a server is asked to do about silent runs; that it does is in ``test_deployments.py``."""

from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatch
from httpx import HTTPError
from prefect.settings import get_current_settings
from flows import heartbeats
from flows.deployments import flows_to_deploy


class Server:
    """A server's automations, by name."""

    def __init__(self) -> None:
        self.automations = []

    def read_automations_by_name(self, name):
        return [each for each in self.automations if each.name == name]

    def create_automation(self, automation):
        self.automations.append(automation)


def test_it_is_asked_once(monkeypatch) -> None:
    server = Server()

    @contextmanager
    def client(sync_client):
        yield server

    monkeypatch.setattr(heartbeats, "get_client", client)
    heartbeats.miss_heartbeats()
    heartbeats.miss_heartbeats()
    assert [each.name for each in server.automations] == [heartbeats.NAME]


def test_a_server_that_refuses_is_told_of_and_stops_nothing(monkeypatch, capsys) -> None:
    @contextmanager
    def client(sync_client):
        raise HTTPError("403 Forbidden")
        yield

    monkeypatch.setattr(heartbeats, "get_client", client)
    heartbeats.miss_heartbeats()
    assert "stay Running there" in capsys.readouterr().err


def test_a_run_that_beats_as_prefect_does_by_itself_is_not_missed() -> None:
    # the process of a pool's worker has Prefect's settings before it knows of our flows
    trigger = heartbeats.automation().trigger
    seconds = type(get_current_settings().flows).model_fields["heartbeat_frequency"].default
    assert trigger.within > timedelta(seconds=3 * seconds)


def test_it_is_about_all_of_our_flows_and_no_others() -> None:
    flow = heartbeats.automation().trigger.match_related.root["prefect.resource.name"]
    assert all(fnmatch(each.name, flow) for each in flows_to_deploy())
    assert not fnmatch("nightly-backup", flow)
