"""Every stage as a flow of its own, with the parameters of the function that it is for.

Types, defaults and help are that function's; which evaluations there are, ``flows.evaluations``
says. ``prefect.yaml`` lists the flows; ``tests/flows/test_deployments.py`` runs them.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any
from prefect import Flow, flow
import care.evaluate
import shards
from care.show import report
from care.train import pretrain
from flows.evaluations import EVALUATIONS
from flows.execution import Execution
from flows.flatten import flat_parameters, flattened
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from flows.stages import Stage

# parameters that a flow has not, since they are no JSON, or are the stage's own business
HIDDEN = {"views", "allow_change", "probe", "probe_every", "cache", "rows"}
# a keyword of shards.build, of which Prefect makes a field of pydantic's
warnings.filterwarnings("ignore", 'Field name "validate"')


def stage_flow(
    work: str, function: Callable[..., Any], paths: tuple[str, ...], **defaults: Any
) -> Flow[..., Result]:
    """A flow of one stage.

    Args:
        work: what the stage does, a name in ``flows.works.WORKS``.
        function: whose keywords are parameters of the flow.
        paths: further parameters, each a path or URL.
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

    run.__signature__ = _signature(run, function, paths, defaults)  # type: ignore[attr-defined]
    run.__name__ = f"care_{name}"
    run.__doc__ = flattened(function).__doc__
    return flow(name=f"care-{name}", persist_result=False)(run)


def _signature(
    run: Callable[..., Any],
    function: Callable[..., Any],
    paths: tuple[str, ...],
    defaults: dict[str, Any],
) -> inspect.Signature:
    """The parameters of a flow: folder, runner, paths, the function's keywords, the work's own."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    out, runner, _ = inspect.signature(run).parameters.values()
    parameters = [out, runner]
    parameters += [inspect.Parameter(name, keyword, annotation=str) for name in paths]
    for name, parameter in flat_parameters(function).items():
        if name not in HIDDEN and name not in defaults:
            parameters.append(parameter)
    for name, value in defaults.items():
        parameters.append(inspect.Parameter(name, keyword, default=value, annotation=type(value)))
    return inspect.Signature(parameters)


def evaluation_flow(kind: str, trials: int) -> Flow[..., Result]:
    """A flow that judges one encoder.

    Args:
        kind: the evaluation, a function in ``care.evaluate``.
        trials: seeds, where no other number is asked for.
    """
    function = getattr(care.evaluate, kind)
    defaults: dict[str, Any] = {"trials": trials}
    if "seed" not in flat_parameters(function):
        defaults["seed"] = 0
    return stage_flow("judge", function, ("encoder", "train", "val"), **defaults)


care_build = stage_flow("build", shards.build, ("source",))
care_pretrain = stage_flow(
    "pretrain", pretrain, ("train",), encoder="resnet50", hidden=4096, t_stream=True, nproc=0
)


@flow(name="care-report", persist_result=False)
def care_report(run: str) -> str:
    """Write the HTML page about a run or a pipeline's folder from the files in it."""
    return str(report(run))


_EVALUATION_FLOWS = {
    f"care_{line.kind}": evaluation_flow(line.kind, line.trials)
    for line in EVALUATIONS
    if line.work == "judge"
}
# a deployment finds its flow as an attribute of this module: care_knn, …
globals().update(_EVALUATION_FLOWS)
STAGES = (care_build, care_pretrain, *_EVALUATION_FLOWS.values(), care_report)
