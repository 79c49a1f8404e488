"""The pipeline as a declared graph: pure functions from an experiment to the stages that do it.

| kind | for each | needs | only if | settings from |
|---|---|---|---|---|
| build | part, annotated part | | | images, boxes |
| pretrain | trained encoder | train | | protocol |
| features | encoder | train, val | labels | size |
| an evaluation | encoder × case | as its line in ``flows.evaluations`` says | | protocol |
| report | | all | | |

Nothing here starts anything; ``tests/flows/test_graph.py`` asserts on the stages.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple
from flows.annotated import is_built
from flows.command import command_of
from flows.evaluations import EVALUATIONS, SETS, Case, EvaluationKind
from flows.experiment import Experiment
from flows.facts import Facts
from flows.result import Result
from flows.stages import Needs, Stage
from flows.trainings import (
    CARE,
    MAIN_STAGE,
    main_training,
    planned_trainings,
    recipes_of,
    training_settings,
    training_stages,
)
from shards.errors import Misuse

# the picture that an evaluation of segmentation leaves of its first trial
SEGMENTATION = "segmentation.png"
RANDOM = "random initialisation"
PARTS = ("train", "val", "voc-train", "voc-val", "coco-train", "coco-val")
KINDS = ("build", "pretrain", "features", *(line.kind for line in EVALUATIONS), "report")
# by these, too, ``--refresh`` calls the stages that build a part or that judge on annotated images
GROUPS = (*PARTS, "voc", "coco")


class Encoder(NamedTuple):
    """An encoder that is judged.

    Attributes:
        name: in the results.
        role: what it is there for: trained here to be judged, or for comparison, or by others.
        source: where it is from, or the stage that trains it.
    """

    name: str
    role: Literal["baseline", "ablation", "care"]
    source: str | Needs

    @property
    def tag(self) -> str:
        """What sets the names of its stages apart."""
        is_main = self.source == Needs(MAIN_STAGE)
        return "" if is_main else re.sub(r"\W+", "-", f"-{self.name.lower()}")


def check_refresh(names: Collection[str]) -> None:
    """Refuse what is the name of no stages.

    Raises:
        Misuse: A name is neither a kind of stages nor a group of them.
    """
    names_of_stages = list(dict.fromkeys((*PARTS, *KINDS, *GROUPS)))
    unknown = {*names} - {*names_of_stages}
    if unknown:
        wanted = f"wanted stages to do again of {', '.join(names_of_stages)}"
        raise Misuse(f"{wanted}; got {', '.join(sorted(unknown))}")


def check_evaluations(experiment: Experiment) -> None:
    """Refuse what is the name of no evaluation.

    Args:
        experiment: that asks for some.

    Raises:
        Misuse: It asks for another one, or for none.
    """
    kinds = [line.kind for line in EVALUATIONS]
    wanted = experiment.judging.evaluate
    if wanted is None:
        return
    unknown = {*wanted} - {*kinds}
    if unknown or not wanted:
        got = ", ".join(sorted(unknown)) or "none"
        raise Misuse(f"wanted evaluations of {', '.join(kinds)}; got {got}")


def data_stages(experiment: Experiment) -> list[Stage]:
    """The stages that build shard sets: of the images, then of annotated ones."""
    seed = {"seed": experiment.seed}
    pixels = experiment.images.pixel_options
    stages = [
        Stage("build", part, "build", inputs | seed | pixels, group=part)
        for part, inputs in experiment.split.parts.items()
    ]
    for pair, images in experiment.annotated_pairs.items():
        for part, source in images.parts.items():
            if not is_built(source):
                inputs = {**source, "annotated": True, **seed, **pixels}
                stages.append(
                    Stage("build", f"{pair}-{part}", "build", inputs, group=f"{pair}-{part}")
                )
    return stages


def encoders(experiment: Experiment) -> list[Encoder]:
    """The encoders that are judged, those that are trained last."""
    random = f"random:{experiment.protocol.encoder}"
    judged = [
        Encoder(RANDOM if source == random else source, "baseline", source)
        for source in experiment.baselines
    ]
    judged += [
        Encoder(training.name, training.role, Needs(training.stage))
        for training in planned_trainings(experiment)
    ]
    return judged


def judging_stages(experiment: Experiment, facts: Facts) -> list[Stage]:
    """The stages that judge, encoder by encoder in the order of the results."""
    stages = list[Stage]()
    for encoder in encoders(experiment):
        stages += _stages_of(encoder, experiment, facts)
    return stages


def _stages_of(encoder: Encoder, experiment: Experiment, facts: Facts) -> Iterator[Stage]:
    """The stages that judge one encoder, after the one that extracts its features."""
    source = encoder.source
    if isinstance(source, Needs):
        source = Needs(source.stage, "encoder.safetensors")  # not all of the run
    judged: Result = {"encoder": source, "seed": experiment.seed}
    lines = _wanted(experiment)
    if experiment.is_labelled and any(line.on_features for line in lines):
        inputs = {"size": experiment.protocol.size, **SETS, **judged}
        yield Stage("features", f"features{encoder.tag}", "features", inputs)
    for line in lines:
        if line.of_ablations or encoder.role != "ablation":
            for case in line.cases(line, experiment, facts):
                yield _judging_stage(line, case, encoder, judged)


def _wanted(experiment: Experiment) -> list[EvaluationKind]:
    """The evaluations that are asked for, or all."""
    wanted = experiment.judging.evaluate
    return [line for line in EVALUATIONS if wanted is None or line.kind in wanted]


def _judging_stage(line: EvaluationKind, case: Case, encoder: Encoder, judged: Result) -> Stage:
    """The stage that judges an encoder by one case of an evaluation."""
    inputs = case.inputs | judged | {"verb": line.kind, "called": encoder.name}
    if line.on_features:
        inputs["cache"] = Needs(f"features{encoder.tag}")
    row = {"encoder": encoder.name}
    return Stage(
        line.kind, f"{case.name}{encoder.tag}", "judge", inputs, case.group, row, rank=line.rank
    )


def report_stage(
    experiment: Experiment, facts: Facts, results: Mapping[str, Result], judged: Sequence[Stage]
) -> Stage:
    """The stage that makes the page.

    Args:
        experiment: which the page is about.
        facts: of its images.
        results: of all other stages, by name.
        judged: the stages that judge, in the order of the results.
    """
    protocol = experiment.protocol
    main = main_training(experiment)
    trained = results[main.stage]
    rows = list[Result]()
    for stage in judged:
        rows += [row | stage.row for row in results[stage.name].get("rows", ())]
    content: Result = {
        "title": f"{main.name} on {experiment.title}",
        "note": experiment.note,
        "skipped": [*experiment.skipped, *facts.skipped],
        "settings": training_settings(experiment, facts)._asdict(),
        "views": protocol.views,
        "seed": experiment.seed,
        "evaluations": rows,
        "losses": trained["losses"],
        "encoder": {"name": protocol.encoder, "size": protocol.size, "sha256": trained["digest"]},
        "stages": _lines_of_stages(experiment, results),
        "command": command_of(experiment),
    }
    recipes = recipes_of(experiment, facts)
    if recipes:
        content["recipes"] = recipes
    inputs: Result = {
        "results": content,
        "encoders": {encoder.name: encoder.source for encoder in encoders(experiment)},
        "sets": {stage.name: Needs(stage.name) for stage in data_stages(experiment)},
        "pictured": "val" if experiment.is_labelled else "train",
        "size": protocol.size,
        "seed": experiment.seed,
    }
    if main.name != CARE:
        inputs["main"] = main.name
    tags = {encoder.name: encoder.tag for encoder in encoders(experiment)}
    inputs |= _pictures_of(judged, results, tags[main.name])
    return Stage("report", "report", "report", inputs)


def _pictures_of(judged: Sequence[Stage], results: Mapping[str, Result], tag: str) -> Result:
    """What the page about an encoder needs of the stages that judged it.

    Args:
        judged: these stages, of any encoders.
        results: of all stages that are finished.
        tag: of the encoder.
    """
    names = {stage.name for stage in judged}
    inputs: Result = {}
    if f"features{tag}" in names:
        inputs["cache"] = Needs(f"features{tag}")
    segmentation = f"segment{tag}"
    outputs = results.get(segmentation, {}).get("outputs", {}) if segmentation in names else {}
    pictures = [name for name in outputs if name.endswith(SEGMENTATION)]
    if pictures:
        inputs["segmented"] = Needs(segmentation, pictures[0])
    return inputs


def _lines_of_stages(experiment: Experiment, results: Mapping[str, Result]) -> list[Result]:
    """What the results say of each set and of each training."""
    names = {stage.name: stage.name for stage in data_stages(experiment)}
    for encoder in encoders(experiment):
        if isinstance(encoder.source, Needs):
            names[encoder.name] = encoder.source.stage
    return [{"name": name, "text": results[stage]["text"]} for name, stage in names.items()]


def unresolved_report_stage(others: Iterable[str]) -> Stage:
    """The stage that makes the page, while the results of the others are not there.

    Args:
        others: names of all other stages.
    """
    needs = {name: Needs(name) for name in others}
    return Stage("report", "report", "report", {"results": needs})


def planned_stages(experiment: Experiment, facts: Facts) -> list[Stage]:
    """All stages of a pipeline, each after those that it needs.

    Args:
        experiment: of which they are.
        facts: what is known or supposed of its images.
    """
    stages = data_stages(experiment)
    stages += training_stages(experiment, facts)
    stages += judging_stages(experiment, facts)
    return [*stages, unresolved_report_stage(stage.name for stage in stages)]
