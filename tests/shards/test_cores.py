import os
import sys
import pytest
from shards import cores


@pytest.fixture(autouse=True)
def _machine_of_sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "cgroup_quota", lambda: None)
    for name in ("OMP_NUM_THREADS", "CARE_CORES"):
        monkeypatch.delenv(name, raising=False)


cgroup_quota = cores.cgroup_quota  # itself, not what the fixture puts there


def tree(root, membership, files):
    """A /proc and a /sys/fs/cgroup below ``root``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_the_affinity_counts_or_else_the_machine(monkeypatch):
    assert cores.available_cores() == 16
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.available_cores() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs the scheduler's affinity")
def test_a_process_that_is_pinned_counts_its_cores(monkeypatch):
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores.available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("quota", "count"), [(0.5, 1), (1.0, 1), (1.5, 2), (3.0, 3), (99.0, 16)])
def test_a_quota_is_rounded_up_and_adds_no_core(monkeypatch, quota, count):
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert cores.available_cores() == count


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "max 100000"}, 1.0),
        ("0::/a", {"other/cpu.max": "100000 100000"}, None),
        ("0::/../../a", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/", {"cpu.max": "nonsense"}, None),
        (
            "5:memory:/pod\n4:cpu,cpuacct:/pod\n0::/",
            {"cpu/pod/cpu.cfs_quota_us": "250000", "cpu/pod/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            "4:cpuacct,cpu:/docker/of-the-host",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            1.0,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        ("a line of another form", {}, None),
    ],
)
def test_the_quota_is_the_least_of_the_group_and_its_parents(tmp_path, membership, files, quota):
    assert cgroup_quota(tree(tmp_path, membership, files)) == quota


def test_there_may_be_no_control_groups(tmp_path):
    assert cgroup_quota(tmp_path) is None


def test_processes_share_the_cores():
    counts = [cores.threads_per_process(processes) for processes in (1, 2, 3, 16, 40)]
    assert counts == [16, 8, 5, 1, 1]
    assert cores.cores_per_process(3) == 5


@pytest.mark.parametrize(
    ("value", "count"),
    [("1", 1), ("4,2", 4), (" 3 ", 3), ("99", 8), ("0", 8), ("-2", 8), ("many", 8), ("", 8)],
)
def test_omp_num_threads_is_obeyed_where_it_is_a_number(monkeypatch, value, count):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.threads_per_process(2) == count
    assert cores.cores_per_process(2) == 8


def test_a_stage_has_the_share_that_the_pipeline_gives_it(monkeypatch):
    monkeypatch.setenv("CARE_CORES", "4")
    assert cores.available_cores() == 4
    assert cores.threads_per_process(2) == 2
