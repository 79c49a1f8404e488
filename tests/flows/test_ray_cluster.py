"""The pipeline on a Ray cluster of several nodes, which are lost, as is the driver: `nox -s flows`.

The nodes are all on this machine, with a core each, and the processes of a group meet over gloo.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
import pytest
from commands import TINY, below, care, environment, options, table, until
from flows import pieces, works
from flows.cluster import group, mapping
from flows.cluster.session import session
from flows.cluster.stages import RayStages
from flows.execution import Execution
from flows.schedule import Schedule
from flows.stages import Stage
from shards.errors import ShardError

pytestmark = pytest.mark.flows
ray = pytest.importorskip("ray")
STEPS = 10
INPUTS: dict[str, Any] = {
    "encoder": "resnet18-small-half",
    "size": 32,
    "hidden": 16,
    "steps": STEPS,
    "batch_size": 8,
    "warmup": 1,
    "lr": 0.05,
    "precision": "fp32",
    "checkpoint_every": 2,
    "workers": 0,
}
# one training, one evaluation, without Prefect
COMMAND = [
    "--plain",
    "--no-t-stream",
    *options({**TINY, "steps": STEPS, "nproc": 2, "evaluate": ("knn",)}),
]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        # a node is taken for lost after seconds, not half a minute
        patch.setenv("RAY_health_check_failure_threshold", "2")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        nodes = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        nodes.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("sets") / "train"
    works.run_work("build", str(path), {"source": "scenes:0+32"})
    return str(path)


@pytest.fixture(scope="module")
def one_machine(train, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    works.run_work("pretrain", str(run), INPUTS | {"train": train})
    return run


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def assert_equal_to_rounding(run: Path, other: Path) -> None:
    assert len(losses(run)) == STEPS
    for row, wanted in zip(losses(run), losses(other), strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def pretrained(out: Path, train: str, nproc: int) -> Path:
    """Train as a stage on the cluster, by so many processes; gives the run."""
    stage = Stage("pretrain", "pretrain", "pretrain", INPUTS | {"train": train})
    with Schedule(str(out), Execution(nproc=nproc, runner="ray")) as schedule:
        result = schedule.run([stage])["pretrain"]
    return Path(result["url"])


@contextmanager
def lost_after_four_steps(
    lose: Callable[[], object], out: Path, train: str
) -> Iterator[Future[Path]]:
    """A training by two processes, after some steps of which something is lost."""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(pretrained, out, train, 2)
        until(lambda: len(_lines(out)) > 3, 120, "four steps")
        # here, since Ray's nodes set handlers of signals
        lose()
        yield run


def lose_node(cluster) -> None:
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


def replace_node(cluster) -> None:
    lose_node(cluster)
    cluster.add_node(num_cpus=1)


def kill_process(_) -> None:
    """Kill one of the processes that train: a fork of another process of that name."""
    lines = below(os.getpid())
    members = [pid for pid in _members() if "flows.child" in lines.get(table()[pid][0], "")]
    os.kill(members[-1], signal.SIGKILL)


def _lines(out: Path) -> list[str]:
    logs = list(out.glob("stages/pretrain-????????/losses.jsonl"))
    return logs[0].read_text().splitlines() if logs else []


@pytest.fixture(scope="module")
def two_nodes(cluster, train, tmp_path_factory) -> Path:
    return pretrained(tmp_path_factory.mktemp("two"), train, 2)


def test_a_group_over_two_nodes_has_the_losses_of_one_machine(two_nodes, one_machine) -> None:
    assert_equal_to_rounding(two_nodes, one_machine)
    manifest = next(two_nodes.glob(f"checkpoints/step-{STEPS:08d}/manifest.json"))
    assert json.loads(manifest.read_text())["world"] == 2
    record = json.loads(Path(f"{two_nodes}.json").read_text())
    assert record["inputs"]["nproc"] == 2


@pytest.mark.parametrize("lose", [replace_node, kill_process])
def test_with_as_many_as_before_the_bits_are_the_same(
    cluster, two_nodes, train, tmp_path, lose
) -> None:
    with lost_after_four_steps(lambda: lose(cluster), tmp_path, train) as training:
        run = training.result()
    for name in ("losses.jsonl", "encoder.safetensors"):
        assert (run / name).read_bytes() == (two_nodes / name).read_bytes()


def test_without_a_node_that_is_lost_the_others_go_on(
    cluster, one_machine, train, tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(group, "PATIENCE_SECONDS", 2)
    with lost_after_four_steps(lambda: lose_node(cluster), tmp_path, train) as training:
        run = training.result()
    cluster.add_node(num_cpus=1)
    assert_equal_to_rounding(run, one_machine)
    assert "the cluster has room for 1 of 2 processes; these go on" in capfd.readouterr().err


def test_the_driver_is_killed_and_the_command_given_again(cluster, tmp_path) -> None:
    out = tmp_path / "lab"
    arguments = ("pipeline", "run", "--out", out, "--runner", "ray", *COMMAND)
    first = care(*arguments, env=environment())
    until(lambda: len(_lines(out)) > 3, 200, "four steps")
    first.kill()
    first.wait()
    until(lambda: not _members(), 60, "the end of the processes that train")
    second = care(*arguments, env=environment())
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    plain = care("pipeline", "run", "--out", tmp_path / "plain", *COMMAND, env=environment())
    assert plain.communicate(timeout=300)[0] is not None
    runs = [next(path.glob("stages/pretrain-????????/")) for path in (out, tmp_path / "plain")]
    assert_equal_to_rounding(*runs)
    tasks = [
        [(row["task"], row["encoder"]) for row in json.loads(path.read_text())["evaluations"]]
        for path in (out / "results.json", tmp_path / "plain" / "results.json")
    ]
    assert tasks[0] == tasks[1]


def _members() -> list[int]:
    """Processes of stages, which on the nodes are below this process, that has the cluster."""
    return [pid for pid, line in below(os.getpid()).items() if "flows.child" in line]


def test_a_stop_lets_the_group_save_and_the_same_call_goes_on(cluster, tmp_path) -> None:
    arguments = ("pipeline", "run", "--out", tmp_path, "--runner", "ray", *COMMAND)
    process = care(*arguments, env=environment())
    until(lambda: len(_lines(tmp_path)) > 2, 200, "three steps")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 3, output
    (status,) = tmp_path.glob("stages/pretrain-????????/status.json")
    assert json.loads(status.read_text())["state"] == "stopped"


def test_a_folder_that_a_node_does_not_see_is_refused(cluster, train, tmp_path, monkeypatch):
    mark = str(tmp_path / "stages" / ".seen-from-another-machine")
    monkeypatch.setattr("flows.cluster.stages._marked", lambda _: mark)
    with pytest.raises(ShardError, match="wanted a folder that all nodes of the Ray cluster share"):
        pretrained(tmp_path, train, 2)


def test_shards_are_written_by_workers_without_prefect_too(cluster, tmp_path, monkeypatch) -> None:
    still_missing = list[Any]()

    def map_and_look(work, out, inputs, missing, stopping) -> None:
        assert len(missing) == 4
        mapping.map_pieces(work, out, inputs, missing, stopping)
        still_missing.append(pieces.missing_pieces(work, out, inputs))

    monkeypatch.setattr("flows.cluster.stages.map_pieces", map_and_look)
    inputs = {"source": "scenes:0+32", "shard_size": 8}
    with Schedule(str(tmp_path / "lab"), Execution(runner="ray")) as schedule:
        result = schedule.run([Stage("train", "train", "build", inputs)])["train"]
    assert still_missing == [[]]
    works.run_work("build", str(tmp_path / "here"), inputs)
    index = (tmp_path / "here" / "index.json").read_bytes()
    assert Path(result["url"], "index.json").read_bytes() == index


def test_an_address_without_a_cluster_is_told_at_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with (
        pytest.raises(ShardError, match=r"wanted a Ray cluster at 127\.0\.0\.1:9 .*got: .*refused"),
        Schedule(str(tmp_path), Execution(runner="ray")),
    ):
        pass
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:9"


def test_where_there_are_gpus_a_stage_has_one_of_its_own(cluster, tmp_path, monkeypatch) -> None:
    # Ray takes our word for it that there are two; torch sees none
    node = cluster.add_node(num_cpus=4, num_gpus=2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    try:
        with session():
            stages = RayStages(str(tmp_path))
            assert stages.at_a_time() == 2
            places = stages._places
            with places.taken() as first, places.taken() as second:
                where = [stages._seats.ask(seat, "whereabouts") for seat in (first, second)]
            stages.stop()
    finally:
        cluster.remove_node(node)
    assert sorted(place.gpus for place in where) == [("0",), ("1",)]
    assert len({place.node for place in where}) == 1
