"""The files for Slurm and Kubernetes, as far as they can be tried without either."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
import prefect
import pytest
import yaml
from prefect.utilities.importtools import import_object
from prefect.utilities.schema_tools import is_valid_schema, validate
from prefect.utilities.templating import apply_values
from flows.pipeline import care_pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted((EXAMPLES / "slurm").glob("*.sbatch"))
# of sbatch's manual, with what each takes
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": "1",
    "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "time": r"\d+:\d\d:\d\d",
    "signal": r"B:TERM@\d+",
    "requeue": "",
    "open-mode": "append|truncate",
    "output": r"[\w-]+-%j\.log",
}
TEMPLATE = json.loads((EXAMPLES / "kubernetes" / "base-job-template.json").read_text())
(DEPLOYMENT,) = yaml.safe_load((EXAMPLES / "kubernetes" / "prefect.yaml").read_text())[
    "deployments"
]
WORKERS = Path(prefect.__file__).parent / "server/api/collections_data/views"


def test_there_are_scripts_for_a_training_and_for_the_pipeline() -> None:
    assert [path.name for path in SCRIPTS] == ["pipeline.sbatch", "pretrain.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_one_for_bash_and_its_options_are_those_of_sbatch(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert len(options) == text.count("#SBATCH")
    for name, value in options.items():
        assert re.fullmatch(SBATCH[name], value), f"--{name}={value}"
    # sbatch reads none that stands below a command
    assert text.rindex("#SBATCH") < text.index("set -u")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_job_that_is_to_stop_lets_its_work_save_and_is_queued_again(
    script: Path, tmp_path: Path, is_stopped: bool
) -> None:
    done = _job(script, tmp_path, is_stopped)
    calls = (tmp_path / "calls").read_text().splitlines()
    started = [line for line in calls if "care.train" in line or line.startswith("care ")]
    (line,) = started
    words = shlex.split(line)
    if script.stem == "pretrain":
        assert words[:2] == ["srun", "--kill-on-bad-exit=1"]
        assert words[-2:] == ["a set", "run"]
        assert "node1:29400" in words
    else:
        assert words == ["care", "pipeline", "run", "--plain", "--runner", "ray", "a set", "run"]
        assert sum("ray start" in line for line in calls) == 2
    if is_stopped:
        assert calls[-2:] == ["saved", "scontrol requeue 17"]
        assert done == 0
    else:
        assert done == 5


def _job(script: Path, folder: Path, is_stopped: bool) -> int:
    """Run a script with stand-ins for what Slurm and Ray have, and give its exit code.

    The work ends with code 5, or is stopped, for which it needs some time.
    """
    stand_in = """#!/bin/bash
words=("${0##*/}" "$@")
printf '%q ' "${words[@]}" | sed 's/ $//' >> "$CALLS"; echo >> "$CALLS"
case "$*" in
    "show hostnames"*) echo node1; echo node2 ;;
    *care.train*|"pipeline run"*)
        [ -z "$STOPPED" ] && exit 5
        trap 'sleep 0.3; echo saved >> "$CALLS"; exit 3' TERM
        kill -TERM "$PPID"
        for _ in $(seq 100); do sleep 0.1; done ;;
esac
"""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("srun", "scontrol", "ray", "care"):
        (programs / name).write_text(stand_in)
    (programs / "sleep").write_text("#!/bin/bash\nexec /bin/sleep 0.1\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "CALLS": str(folder / "calls"),
        "STOPPED": "yes" if is_stopped else "",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "17",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "2",
    }
    command = ["bash", script, "a set", "run"]
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def test_the_pool_of_kubernetes_gives_what_its_jobs_ask_for() -> None:
    variables = DEPLOYMENT["work_pool"]["job_variables"]
    schema = TEMPLATE["variables"]
    is_valid_schema(schema, preprocess=False)
    validate(variables, schema, raise_on_error=True, preprocess=False)
    properties = schema["properties"]
    assert variables.keys() <= properties.keys()
    placeholders = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert placeholders == properties.keys()
    defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
    job = apply_values(TEMPLATE["job_configuration"], defaults | variables)["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8, "memory": "256Gi"}
    assert pod["terminationGracePeriodSeconds"] == 300
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_the_pool_has_what_prefects_own_template_has() -> None:
    workers: Any = json.loads((WORKERS / "aggregate-worker-metadata.json").read_text())
    default = workers["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    configuration = default["job_configuration"]
    assert TEMPLATE["job_configuration"].keys() == configuration.keys()
    ours = TEMPLATE["job_configuration"]["job_manifest"]
    assert ours.keys() == configuration["job_manifest"].keys()
    assert ours["metadata"] == configuration["job_manifest"]["metadata"]
    resources = {"cpu_limit", "cpu_request", "memory_limit", "memory_request"}
    missing = default["variables"]["properties"].keys() - TEMPLATE["variables"]["properties"].keys()
    assert missing == resources


def test_the_deployment_for_kubernetes_is_the_pipeline_with_parameters_of_its_own() -> None:
    flow = import_object(DEPLOYMENT["entrypoint"])
    assert flow is care_pipeline
    parameters = flow.validate_parameters(DEPLOYMENT["parameters"])
    assert parameters["out"].startswith("s3://")
    dockerfile = (EXAMPLES / "kubernetes" / "Dockerfile").read_text()
    assert "prefect-kubernetes" in dockerfile
