"""The trainings of a pipeline: each objective with the T-stream, or its C-stream alone, or both."""

from typing import Literal, NamedTuple
from flows.experiment import Experiment
from flows.facts import Facts
from flows.recipes import (
    BYOL,
    PLAIN_OPTIMIZER,
    describe_recipe,
    recipe_inputs,
    title_of,
    warmup_steps,
)
from flows.result import Result
from flows.stages import Needs, Stage

CARE = "CARE"
C_STREAM = "C-stream alone"
# the stage of the encoder that a pipeline is for
MAIN_STAGE = "pretrain"


class PlannedTraining(NamedTuple):
    """A training of a pipeline.

    Attributes:
        name: of its encoder in the results.
        stage: that trains it.
        role: what it is there for: to be judged by all evaluations, or for comparison.
        objective: of the C-stream.
        t_stream: whether there is a T-stream.
    """

    name: str
    stage: str
    role: Literal["ablation", "care"]
    objective: str
    t_stream: bool


class TrainingSettings(NamedTuple):
    """How an encoder is trained, as the results tell it.

    Attributes:
        steps: of all.
        batch_size: images a step.
        warmup: steps in which the learning rate rises.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        attention_weight: λ of Eq. 5.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    batch_size: int
    warmup: int
    lr: float
    momentum: float
    attention_weight: float
    checkpoint_every: int


def planned_trainings(experiment: Experiment) -> list[PlannedTraining]:
    """The trainings, objective by objective; the first objective's is what the pipeline is for."""
    trainings = list[PlannedTraining]()
    has_t_stream = experiment.training.t_stream
    for objective in dict.fromkeys(experiment.training.objectives):
        is_first = not trainings
        if experiment.trains_c_stream:
            trainings.append(_alone(objective, is_first=is_first, is_all=not has_t_stream))
        if has_t_stream:
            name = CARE if objective == BYOL else f"{CARE} with {title_of(objective)}"
            stage = MAIN_STAGE if is_first else f"{MAIN_STAGE}-{objective}"
            trainings.append(PlannedTraining(name, stage, "care", objective, True))
    return trainings


def _alone(objective: str, *, is_first: bool, is_all: bool) -> PlannedTraining:
    """The training of a C-stream alone.

    Args:
        objective: of it.
        is_first: whether it is the pipeline's first objective.
        is_all: whether there is no T-stream beside which it is trained for comparison.
    """
    name = C_STREAM if objective == BYOL else f"{title_of(objective)} alone"
    stage = f"{MAIN_STAGE}-c-stream" if is_first else f"{MAIN_STAGE}-{objective}-alone"
    if is_first and is_all:
        stage = MAIN_STAGE
    role: Literal["ablation", "care"] = "care" if is_all else "ablation"
    return PlannedTraining(name, stage, role, objective, False)


def main_training(experiment: Experiment) -> PlannedTraining:
    """The training of the encoder that the pipeline is for."""
    trainings = planned_trainings(experiment)
    return next(training for training in trainings if training.stage == MAIN_STAGE)


def training_settings(experiment: Experiment, facts: Facts) -> TrainingSettings:
    """How the encoder that the pipeline is for is trained, on as many images as there are."""
    inputs = training_inputs(experiment, facts, main_training(experiment))
    return TrainingSettings(**{name: inputs[name] for name in TrainingSettings._fields})


def training_inputs(experiment: Experiment, facts: Facts, training: PlannedTraining) -> Result:
    """The inputs of the stage that pre-trains an encoder, but for its initial weights.

    Args:
        experiment: of the training.
        facts: of its images.
        training: of the encoder.
    """
    by_protocol, by_recipe = _both_inputs(experiment, facts, training)
    return by_protocol | by_recipe


def _both_inputs(
    experiment: Experiment, facts: Facts, training: PlannedTraining
) -> tuple[Result, Result]:
    """The inputs as the protocol says, and those that a recipe says otherwise."""
    protocol = experiment.protocol
    batch_size = min(protocol.batch_size, facts.images)
    epoch = max(facts.images // batch_size, 1)
    steps = protocol.steps
    if steps is None:
        steps = (protocol.epochs or 0) * epoch
    warmup = warmup_steps(training.objective, protocol, steps=steps, epoch=epoch)
    settings = TrainingSettings(
        steps=steps,
        batch_size=batch_size,
        warmup=warmup,
        lr=protocol.lr,
        momentum=protocol.momentum,
        # λ weighs nothing without a T-stream
        attention_weight=experiment.training.attention_weight if training.t_stream else 0,
        checkpoint_every=protocol.checkpoint_every,
    )
    by_protocol: Result = {
        "train": Needs("train"),
        "t_stream": training.t_stream,
        "encoder": protocol.encoder,
        "size": protocol.size,
        "hidden": protocol.hidden,
        "views": protocol.views,
        "seed": experiment.seed,
        **settings._asdict(),
    }
    by_recipe = recipe_inputs(
        training.objective,
        experiment.declared_protocol,
        experiment.training.recipe_changes,
        warmup=warmup,
        size=protocol.size,
        t_stream=training.t_stream,
        encoder=protocol.encoder,
    )
    return by_protocol, by_recipe


def recipes_of(experiment: Experiment, facts: Facts) -> dict[str, Result]:
    """How encoders are trained otherwise than the protocol says, by their names, as JSON.

    Each has a ``text`` in a line, and the inputs of its stage of which that tells.
    """
    recipes = dict[str, Result]()
    for training in planned_trainings(experiment):
        by_protocol, by_recipe = _both_inputs(experiment, facts, training)
        if by_recipe:
            settings = {"optimizer": PLAIN_OPTIMIZER, **by_protocol, **by_recipe}
            text = describe_recipe(training.objective, settings)
            recipes[training.name] = {"text": text, **by_recipe}
    return recipes


def training_stages(experiment: Experiment, facts: Facts) -> list[Stage]:
    """The stages that pre-train, each C-stream alone before both streams.

    Args:
        experiment: of which they are.
        facts: of its images.
    """
    stages = list[Stage]()
    for training in planned_trainings(experiment):
        inputs = training_inputs(experiment, facts, training)
        if experiment.training.init is not None:
            inputs["init"] = experiment.training.init
        stages.append(Stage("pretrain", training.stage, "pretrain", inputs, exclusive=True))
    return stages
