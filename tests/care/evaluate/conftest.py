import fsspec
import pytest
import shards
from care.train.step import Stepper
from shards import objects


@pytest.fixture
def reads(monkeypatch):
    """(set, row) of every image that was read."""
    seen, image = [], shards.ShardSet.image

    def record(self, row):
        seen.append((self.path.name, int(row)))
        return image(self, row)

    monkeypatch.setattr(shards.ShardSet, "image", record)
    return seen


@pytest.fixture
def at_step(monkeypatch):
    """Does something in the middle of a step: its losses are there, the optimizer has not moved."""
    update = Stepper.update

    def register(steps, action):
        def action_and_update(self, now, *args):
            if now in steps:
                action()
            return update(self, now, *args)

        monkeypatch.setattr(Stepper, "update", action_and_update)

    return register


@pytest.fixture(scope="session")
def s3():
    """A bucket on a server of this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    names = {
        "ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (names | {"DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(f"AWS_{name}", value)
        objects.file_system("s3://bucket")[0].makedirs("bucket", exist_ok=True)
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.cloud)])
def url(request, tmp_path):
    """An empty folder in an object store."""
    yield (
        f"memory://bucket/{tmp_path.name}"
        if request.param == "memory"
        else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    )
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """From now on this is the machine of that name: it has a cache of its own."""
    return lambda name: monkeypatch.setenv("CARE_CACHE", str(tmp_path / name / "shards"))
