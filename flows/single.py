"""Every stage as a flow of its own, with the parameters of the function that it is for.

Types, defaults and help are that function's; which evaluations there are, ``flows.evaluations``
says. ``prefect.yaml`` lists the flows, as ``tests/flows/test_deployed_flows.py`` holds.
"""

import inspect
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from prefect import Flow, flow
import care.evaluate
import shards
from care.show import report
from care.train import pretrain
from care.train.checks import check_method, check_optimizer
from flows.evaluations import JUDGED, EvaluationKind
from flows.execution import Execution
from flows.flatten import flat_parameters, flattened, parse_docstring
from flows.protocols import PAPER
from flows.recipes import (
    BYOL,
    ObjectiveName,
    OptimizerName,
    RecipeChanges,
    recipe_inputs,
    warmup_steps,
)
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from flows.stages import Stage
from flows.verbs import learns
from shards.bounds import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt

# parameters of pre-training that are no JSON, or need someone who looks
HIDDEN = {"views", "allow_change", "probe", "probe_every", "probes", "on_step"}
# what byol's are, where nothing else is asked for
_PLAIN: Result = {
    "hidden": 4096,
    "lr": 0.05,
    "warmup": 0,
    "weight_decay": 0.0001,
    "momentum": 0.99,
    "momentum_rises": True,
}
# a keyword of shards.build, of which Prefect makes a field of pydantic's
warnings.filterwarnings("ignore", 'Field name "validate"')


@dataclass(frozen=True, kw_only=True)
class Method:
    """By what a network is pre-trained; what is None, the recipe of the objective decides.

    Attributes:
        objective: of the C-stream; those that there are have a recipe each (docs/objectives.md).
        t_stream: both streams, or the C-stream alone.
        hidden: hidden width of projectors and predictors, of byol 4096.
        optimizer: by name, sgd, lars, larc or adamw, of byol sgd.
        lr: base learning rate for 256 images, of byol 0.05.
        warmup: steps of linear warm-up, of byol 0.
        weight_decay: of byol 0.0001.
        momentum: first momentum coefficient of the targets, of byol 0.99.
        momentum_rises: it goes to 1 over the run, or stays.
    """

    objective: ObjectiveName = "byol"
    t_stream: bool = True
    hidden: PositiveInt | None = None
    optimizer: OptimizerName | None = None
    lr: NonNegativeFloat | None = None
    warmup: NonNegativeInt | None = None
    weight_decay: NonNegativeFloat | None = None
    momentum: Fraction | None = None
    momentum_rises: bool | None = None


def pretraining_inputs(asked_for: Result) -> Result:
    """The inputs of a stage that pre-trains, with what the recipe of its objective decides.

    Args:
        asked_for: parameters of the flow that are not None.

    Raises:
        Misuse: Encoder and objective do not go together.
        CareError: The optimizer's library is not installed.
    """
    inputs = dict(asked_for)
    name = inputs.pop("objective", BYOL)
    optimizer = inputs.pop("optimizer", None)
    check_method(inputs["encoder"], name, t_stream=inputs["t_stream"])
    check_optimizer(name, optimizer)
    changes = RecipeChanges(
        optimizer, inputs.get("lr"), inputs.get("momentum"), inputs.get("hidden")
    )
    warmup = 0
    if name != BYOL:
        images = len(shards.open(inputs["train"]))
        epoch = max(images // inputs["batch_size"], 1)
        warmup = warmup_steps(name, PAPER, steps=inputs["steps"], epoch=epoch)
    by_recipe = recipe_inputs(
        name,
        PAPER,
        changes,
        warmup=warmup,
        size=inputs["size"],
        t_stream=inputs["t_stream"],
        encoder=inputs["encoder"],
    )
    # rate and momentum are those that were asked for already
    return _PLAIN | by_recipe | inputs


def stage_flow(
    work: str,
    function: Callable[..., Any],
    paths: tuple[str, ...],
    skip: Collection[str] = (),
    *,
    method: type[Method] | None = None,
    **defaults: Any,
) -> Flow[..., Result]:
    """A flow of one stage.

    Args:
        work: what the stage does, a name in ``flows.works.WORKS``.
        function: whose keywords are parameters of the flow.
        paths: further parameters, each a path or URL.
        skip: keywords that are no parameters.
        method: whose fields are parameters, too, in the place of the function's.
        **defaults: further parameters, of the work itself.
    """
    name = function.__name__
    is_evaluation = work == "judge"

    def run(out: str, *, runner: Runner = "threads", **inputs: Any) -> Result:
        inputs = {option: value for option, value in inputs.items() if value is not None}
        if is_evaluation:
            inputs["verb"] = name
        if method is not None:
            inputs = pretraining_inputs(inputs)
        with Schedule(out, Execution(runner=runner)) as schedule:
            stage = Stage(name, name, work, inputs)
            return schedule.start(stage, alone=work == "pretrain").result()

    keyword = inspect.Parameter.KEYWORD_ONLY
    out, runner, _ = inspect.signature(run).parameters.values()
    parameters = [out, runner]
    parameters += [inspect.Parameter(path, keyword, annotation=str) for path in paths]
    of_method = {} if method is None else flat_parameters(method)
    for parameter in flat_parameters(function).values():
        if parameter.name not in {*skip, *defaults, *of_method}:
            parameters.append(parameter)
    parameters += of_method.values()
    for option, value in defaults.items():
        parameters.append(inspect.Parameter(option, keyword, default=value, annotation=type(value)))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__ = f"care_{name}"
    run.__doc__ = _docstring(function, method)
    return flow(name=f"care-{name}", persist_result=False)(run)


def _docstring(function: Callable[..., Any], method: type[Method] | None) -> str:
    """What a flow says of itself and of its parameters."""
    about = flattened(function).__doc__ or ""
    if method is None:
        return about
    help_texts = parse_docstring(method)[1]
    kept = [line for line in about.splitlines() if line.strip().partition(":")[0] not in help_texts]
    return "\n".join([*kept, *(f"    {name}: {text}" for name, text in help_texts.items())])


def evaluation_flow(line: EvaluationKind) -> Flow[..., Result]:
    """A flow that judges one encoder.

    Args:
        line: which evaluation it is.
    """
    function = getattr(care.evaluate, line.kind)
    defaults: dict[str, Any] = {"trials": line.trials}
    if "seed" not in flat_parameters(function):
        defaults["seed"] = 0
    paths = ("encoder", "train", "val") if learns(line.kind) else ("encoder", "val")
    return stage_flow("judge", function, paths, line.hidden_parameters(), **defaults)


care_build = stage_flow("build", shards.build, ("source",), {"hold_out"})
care_pretrain = stage_flow(
    "pretrain",
    pretrain,
    ("train",),
    HIDDEN,
    method=Method,
    encoder="resnet50",
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
