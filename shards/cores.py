"""How many CPU cores this process may use, and how many threads each of several processes.

A container, a batch system or a user may grant a process less than the machine has. Threads beyond
that wait, spinning, for those that a neighbour holds up: a training then takes many times as long.
"""

import math
import os
import re
from pathlib import Path, PurePosixPath

CPU_HIERARCHIES = ("cpu", "cpu,cpuacct", "cpuacct,cpu")  # where version 1 of cgroups is mounted


def available_cores() -> int:
    """Cores that this process may use.

    The least of the scheduler's affinity, the CPU quota of the control group, rounded up, and
    ``CARE_CORES``, by which the pipeline gives each of the stages that run at a time its share.

    Returns:
        The number of cores, at least 1.
    """
    limits = [_scheduled_cores()]
    quota = cgroup_quota()
    if quota is not None:
        limits.append(math.ceil(quota))
    share = _count_from_environment("CARE_CORES")
    if share is not None:
        limits.append(share)
    return max(min(limits), 1)


def cores_per_process(processes: int = 1) -> int:
    """Cores of each of several processes that share what this one may use.

    Args:
        processes: how many there are on this machine.

    Returns:
        The number of cores, at least 1.
    """
    return max(available_cores() // processes, 1)


def threads_per_process(processes: int = 1) -> int:
    """Computing threads that each of several processes should have.

    Args:
        processes: how many there are on this machine.

    Returns:
        Its share of the cores, at least 1, and not more than ``OMP_NUM_THREADS`` where that is set.
        Of a list, one number for each level of nested parallelism, the first counts.
    """
    cores = cores_per_process(processes)
    wanted = _count_from_environment("OMP_NUM_THREADS")
    return cores if wanted is None else min(cores, wanted)


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPU quota of this process's control group or of one of its parents, whichever is less.

    Args:
        root: where ``proc`` and ``sys`` are; another one in tests.

    Returns:
        Cores, not rounded, or None without a quota.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or no /proc
        return None
    mounts = root / "sys/fs/cgroup"
    quotas = list[float]()
    for membership in memberships:
        _, _, controllers_and_path = membership.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers == "":  # version 2; beside version 1 it is in a folder of its own
            hierarchies = [mounts, mounts / "unified"]
        elif "cpu" in controllers.split(","):
            hierarchies = [mounts / name for name in CPU_HIERARCHIES]
        else:
            continue
        for hierarchy in hierarchies:
            quotas += _quotas_up_from(hierarchy, path)
    return min(quotas, default=None)


def _scheduled_cores() -> int:
    """Cores that the scheduler gives this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas_up_from(hierarchy: Path, path: str) -> list[float]:
    """Quotas, in cores, of a control group and its parents, of those that have one.

    A container may be told its path on the host, of which it sees the end only, as the root of the
    hierarchy: folders that are not there are passed over.
    """
    group = PurePosixPath(path.lstrip("/"))
    if ".." in group.parts:  # outside of what this namespace sees
        group = PurePosixPath()
    folders = [hierarchy / folder for folder in (group, *group.parents)]
    return [quota for quota in map(_quota_of, folders) if quota is not None]


def _quota_of(folder: Path) -> float | None:
    """The quota of one control group, in cores, or None without one."""
    try:
        version_2 = folder / "cpu.max"
        if version_2.exists():
            quota, period = version_2.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no quota is the word "max"
        return None
    return cores if cores > 0 else None  # version 1 says -1


def _count_from_environment(name: str) -> int | None:
    """The first number of a variable, or None where there is none above 0."""
    first = re.fullmatch(r"\s*(\d+)\s*(,.*)?", os.environ.get(name, ""))
    return (int(first[1]) or None) if first else None
