"""The whole pipeline in an object store, a real server on this machine: `nox -s flows`."""

import socket
from pathlib import Path
import pytest
from commands import TINY, care, environment, options

pytestmark = pytest.mark.flows
SECRET = "not-to-be-told"


def test_everything_in_a_bucket_and_again_from_another_machine(tmp_path: Path) -> None:
    moto = pytest.importorskip("moto.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    store.start()
    keys = {
        "ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": SECRET,
        "DEFAULT_REGION": "us-east-1",
    }
    names = {f"AWS_{name}": value for name, value in keys.items()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        from shards import objects, storage

        objects.file_system("s3://bucket")[0].mkdir("bucket")

        def run(out: object, machine: str) -> str:
            (tmp_path / machine).mkdir(exist_ok=True)
            own = environment(CARE_CACHE=str(tmp_path / machine / "cache" / "shards"), **names)
            process = care(
                "pipeline", "run", "--out", out, *options(TINY), env=own, cwd=tmp_path / machine
            )
            output = process.communicate(timeout=580)[0]
            assert process.returncode == 0, output
            return output

        run(tmp_path / "local", "a")
        first = run("s3://bucket/lab", "b")
        assert "pretrain: pre-training: 24/24" in first
        for name in (
            "results.json",
            "results.md",
            "encoder.safetensors",
            "losses.jsonl",
            "maps.png",
            "maps.json",
            "segmentation.png",
            "report.html",
        ):
            assert (
                storage.read_bytes(f"s3://bucket/lab/{name}")
                == (tmp_path / "local" / name).read_bytes()
            ), name
        again = run("s3://bucket/lab", "c")
        assert again.count("finished before") == 28
        assert "pretrain: pre-training:" not in again
        everything = storage.listing("s3://bucket/lab", deep=True)
        assert not [
            name
            for name in everything
            if SECRET.encode() in storage.read_bytes(f"s3://bucket/lab/{name}")
        ]
        report = care("report", "s3://bucket/lab", env=environment(**names))
        assert "s3://bucket/lab/report.html" in report.communicate(timeout=100)[0]
        status = care("pipeline", "status", "s3://bucket/lab", env=environment(**names))
        assert status.communicate(timeout=100)[0].count("finished") >= 28
        secret = care("pipeline", "run", "--out", f"s3://k:{SECRET}@bucket/lab", env=environment())
        output = secret.communicate(timeout=100)[0]
        assert secret.returncode == 1
        assert "AWS_ACCESS_KEY_ID" in output
        assert SECRET not in output
    store.stop()
