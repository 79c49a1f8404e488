"""Every stage as a flow of its own, with the parameters of the function that it is for: their types, defaults and words."""

import inspect
import warnings
from collections.abc import Callable, Collection
from typing import Any
from prefect import Flow, flow
import shards
from care.evaluate import detect, finetune, knn, linear
from care.show import report
from care.train import pretrain
from flows.flatten import flattened
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule

_SETS = ("train", "val")
warnings.filterwarnings(
    "ignore", 'Field name "validate"'
)  # a keyword of shards.build, of which Prefect makes a field of pydantic's


def _flow(
    work: str,
    function: Callable[..., Any],
    given: Collection[str],
    skip: Collection[str] = (),
    **more: Any,
) -> Flow[..., Result]:
    function = flattened(function)
    name = function.__name__
    fixed: Result = {"verb": name} if work == "judge" else {}

    def run(out: str, runner: Runner = "threads", **inputs: Any) -> Result:
        chosen = {option: value for option, value in inputs.items() if value is not None}
        with Schedule(out, runner=runner) as chain:
            return chain.start(name, work, fixed | chosen, alone=work == "pretrain").result()

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = {
        one.name: one
        for one in inspect.signature(function).parameters.values()
        if one.kind is keyword and one.name not in skip
    }
    options |= {
        option: inspect.Parameter(option, keyword, default=value, annotation=type(value))
        for option, value in more.items()
    }
    paths = [inspect.Parameter(option, keyword, annotation=str) for option in given]
    out, runner, _ = inspect.signature(run).parameters.values()
    run.__signature__ = inspect.Signature(
        [out, runner.replace(kind=keyword), *paths, *options.values()]
    )  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = f"care_{name}", function.__doc__
    return flow(name=f"care-{name}", persist_result=False)(run)


care_build = _flow("build", shards.build, ["source"])
_OURS = ("views", "allow_change", "probe", "probe_every")
care_pretrain = _flow(
    "pretrain", pretrain, ["train"], _OURS, encoder="resnet50", hidden=4096, t_stream=True, nproc=0
)
care_knn = _flow("judge", knn, ["encoder", *_SETS], ["cache"], trials=1, seed=0)
care_linear = _flow("judge", linear, ["encoder", *_SETS], ["cache"], trials=1)
care_finetune = _flow("judge", finetune, ["encoder", *_SETS], ["cache", "rows"], trials=3)
care_detect = _flow("judge", detect, ["encoder", *_SETS], trials=1)


@flow(name="care-report", persist_result=False)
def care_report(run: str) -> str:
    """Write the HTML page about a run or a pipeline's folder from the files in it."""
    return str(report(run))


STAGES = (care_build, care_pretrain, care_knn, care_linear, care_finetune, care_detect, care_report)
