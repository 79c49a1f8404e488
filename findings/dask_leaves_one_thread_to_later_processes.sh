#!/usr/bin/env bash
# distributed 2026.8.0: after a LocalCluster has been used and closed, every process started later computes with one thread.
#
# Dask wants its workers to compute with one thread each, and OMP_NUM_THREADS has to be in the environment before they
# start: it is set in the *starting* process, and never taken out. After the `with` block the variable is there, with those
# of MKL and OpenBLAS; numpy or torch in a child that the same program starts then take one core of all. The program itself,
# whose torch has counted its threads before, stays as fast as it was, so that nothing looks wrong where one would look.
# One would guess that a closed cluster leaves nothing. It matters to programs that prepare data on Dask and then start a
# training: torch's default, one thread a core, is gone without a word. `distributed.nanny.pre-spawn-environ` = {} and
# `LocalCluster(env=…)` give the workers theirs and leave the program alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 dask==2026.8.0
cd "$folder"
unset OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS
cat > seen.py <<'PYTHON'
import os
import subprocess
import sys
from importlib.metadata import version
import dask
from dask.distributed import Client, LocalCluster

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOOK = f"import os; print([os.environ.get(name) for name in {NAMES}])"


def of_a_child():
    """What a process that is started now has."""
    return subprocess.check_output([sys.executable, "-c", LOOK], text=True).strip()


def of_a_worker(**options):
    """What a worker of a cluster has, which is closed again."""
    with LocalCluster(n_workers=1, dashboard_address=None, **options) as cluster:
        with Client(cluster) as client:
            return client.submit(os.getenv, NAMES[0]).result()


if __name__ == "__main__":
    print("distributed", version("distributed"))
    nothing = str([None] * 3)
    assert of_a_child() == nothing
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
        seen = of_a_worker(env={NAMES[0]: "1"}), of_a_child()
    print("told by env: worker", seen[0], "child of the program afterwards", seen[1])
    assert seen == ("1", nothing)
    seen = of_a_worker(), of_a_child()
    print("by default: worker", seen[0], "child of the program afterwards", seen[1])
    assert seen == ("1", str(["1"] * 3))
PYTHON
"$folder/venv/bin/python" -W ignore seen.py
