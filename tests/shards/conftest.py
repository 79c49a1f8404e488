import os
import subprocess
from pathlib import Path
import pytest
from made_images import populate
from made_stores import AZURITE_KEY, azurite, free_port, make_bucket
from shards import Cache, objects


@pytest.fixture
def photos(tmp_path):
    """Two classes of nine and eight images."""
    names = [f"cat/{n}.jpg" for n in range(9)] + [f"dog/{n}.jpg" for n in range(8)]
    return populate(tmp_path / "photos", names)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


# object stores, real servers on this machine


@pytest.fixture(params=["s3", "azure"])
def bucket(request, tmp_path, monkeypatch):
    """A folder in a bucket of each store, whose failures are tried again at once."""
    monkeypatch.setattr(objects, "PAUSES", (0.01, 0.01))
    return f"{request.getfixturevalue(request.param)}/{tmp_path.name}"


@pytest.fixture(scope="module")
def s3():
    moto = pytest.importorskip("moto.server")
    port = free_port()
    server = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "k")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store, _ = objects.file_system("s3://bucket")
        store.makedirs("bucket", exist_ok=True)
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    pytest.importorskip("adlfs")
    folder = Path(os.environ.get("AZURITE", tmp_path_factory.mktemp("azurite")))
    port = free_port()
    flags = ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    command = [azurite(folder), *flags, "--blobPort", str(port)]
    server = subprocess.Popen(command, cwd=folder)
    account = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
            make_bucket("az://bucket", seconds=120)
            yield "az://bucket"
    finally:
        server.terminate()
        server.wait()
