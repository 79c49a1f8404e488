"""What the pipeline adds to Prefect (nox -s bench -- flows).

A finished chain is asked for again, beside as many empty Prefect tasks.
"""

import os
import subprocess
import sys
import tempfile
from flows.status import stage_states
from tests.bench.timing import interleaved

ROUNDS = 5
OPTIONS = (
    "--steps 2 --batch-size 8 --hidden 16 --size 32 --train-scenes 32 --val-scenes 16"
    " --labels 0.5 --finetune-steps 2 --detection-size 32 --detection-iterations 2"
)
EMPTY = """
import flows  # its environment: the same quiet settings
from prefect import flow, task

@task
def empty(number):
    return number

@flow
def tasks(count):
    for future in empty.map(range(count)):
        future.result()

tasks({count})
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = os.environ | {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_LOGGING_LEVEL": "ERROR"}
        own.pop("PREFECT_API_URL", None)

        def run(*command: str) -> None:
            subprocess.run([sys.executable, *command], env=own, check=True, capture_output=True)

        chain = ("-m", "flows.cli", "pipeline", "run", "--out", f"{folder}/lab", *OPTIONS.split())
        run(*chain)  # which makes the stages, and Prefect's database
        count = len(stage_states(f"{folder}/lab"))
        peers = {
            "Prefect, as many empty tasks": lambda: run("-c", EMPTY.format(count=count)),
            "care pipeline run, all finished": lambda: run(*chain),
            "care pipeline run --plain, all finished": lambda: run(*chain, "--plain"),
            "care --help": lambda: run("-m", "flows.cli", "--help"),
        }
        empty, ours, *others = interleaved(peers, ROUNDS).values()
    for name, seconds in zip(peers, (empty, ours, *others), strict=True):
        print(f"{name}: {seconds:.2f} s")
    print(
        f"the pipeline adds {ours - empty:.2f} s to Prefect's {empty:.2f} s for {count} stages; "
        f"it may add {2 + 0.1 * count:.1f} s"
    )


if __name__ == "__main__":
    main()
