"""Every stage as a flow of its own, with the parameters of the function that it is for.

Types, defaults and help are that function's; which evaluations there are, ``flows.evaluations``
says. ``prefect.yaml`` lists the flows, as ``tests/flows/test_deployed_flows.py`` holds.
"""

import inspect
import warnings
from collections.abc import Callable, Collection
from typing import Any
from prefect import Flow, flow
import care.evaluate
import shards
from care.show import report
from care.train import pretrain
from flows.evaluations import JUDGED, EvaluationKind
from flows.execution import Execution
from flows.flatten import flat_parameters, flattened
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from flows.stages import Stage

# parameters of pre-training that are no JSON, or need someone who looks
HIDDEN = {"views", "allow_change", "probe", "probe_every"}
# a keyword of shards.build, of which Prefect makes a field of pydantic's
warnings.filterwarnings("ignore", 'Field name "validate"')


def stage_flow(
    work: str,
    function: Callable[..., Any],
    paths: tuple[str, ...],
    skip: Collection[str] = (),
    **defaults: Any,
) -> Flow[..., Result]:
    """A flow of one stage.

    Args:
        work: what the stage does, a name in ``flows.works.WORKS``.
        function: whose keywords are parameters of the flow.
        paths: further parameters, each a path or URL.
        skip: keywords that are no parameters.
        **defaults: further parameters, of the work itself.
    """
    name = function.__name__
    is_evaluation = work == "judge"

    def run(out: str, *, runner: Runner = "threads", **inputs: Any) -> Result:
        inputs = {option: value for option, value in inputs.items() if value is not None}
        if is_evaluation:
            inputs["verb"] = name
        with Schedule(out, Execution(runner=runner)) as schedule:
            stage = Stage(name, name, work, inputs)
            return schedule.start(stage, alone=work == "pretrain").result()

    keyword = inspect.Parameter.KEYWORD_ONLY
    out, runner, _ = inspect.signature(run).parameters.values()
    parameters = [out, runner]
    parameters += [inspect.Parameter(path, keyword, annotation=str) for path in paths]
    for parameter in flat_parameters(function).values():
        if parameter.name not in {*skip, *defaults}:
            parameters.append(parameter)
    for option, value in defaults.items():
        parameters.append(inspect.Parameter(option, keyword, default=value, annotation=type(value)))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__ = f"care_{name}"
    run.__doc__ = flattened(function).__doc__
    return flow(name=f"care-{name}", persist_result=False)(run)


def evaluation_flow(line: EvaluationKind) -> Flow[..., Result]:
    """A flow that judges one encoder.

    Args:
        line: which evaluation it is.
    """
    function = getattr(care.evaluate, line.kind)
    defaults: dict[str, Any] = {"trials": line.trials}
    if "seed" not in flat_parameters(function):
        defaults["seed"] = 0
    paths = ("encoder", "train", "val")
    return stage_flow("judge", function, paths, line.hidden_parameters(), **defaults)


care_build = stage_flow("build", shards.build, ("source",), {"hold_out"})
care_pretrain = stage_flow(
    "pretrain",
    pretrain,
    ("train",),
    HIDDEN,
    encoder="resnet50",
    hidden=4096,
    t_stream=True,
    nproc=0,
)


@flow(name="care-report", persist_result=False)
def care_report(run: str) -> str:
    """Write the HTML page about a run or a pipeline's folder from the files in it."""
    return str(report(run))


_EVALUATION_FLOWS = {f"care_{line.kind}": evaluation_flow(line) for line in JUDGED}
# a deployment finds its flow as an attribute of this module: care_knn, …
globals().update(_EVALUATION_FLOWS)
STAGES: tuple[Flow[..., Any], ...] = (
    care_build,
    care_pretrain,
    *_EVALUATION_FLOWS.values(),
    care_report,
)
