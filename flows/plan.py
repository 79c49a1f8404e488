"""What a pipeline would do, looked up without doing any of it: `care pipeline plan`."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from flows import graph, records
from flows.checks import check_encoders
from flows.experiment import Experiment
from flows.facts import Facts
from flows.flatten import flat_parameters, gathered
from flows.result import Result
from flows.stages import Stage
from flows.trainings import training_stages
from shards import storage
from shards.once import listing_once
from shards.progress import warn

State = Literal["cached", "to run", "to continue", "left out"]


class PlannedStage(NamedTuple):
    """A line of a plan.

    Attributes:
        stage: its name and, where its inputs are known, the beginning of its key.
        kind: by which ``--refresh`` calls it; "" of what is left out.
        state: what would become of it.
        why: it is so.
    """

    stage: str
    kind: str
    state: State
    why: str


@listing_once()
def plan_of_options(options: Mapping[str, Any]) -> list[PlannedStage]:
    """What `care pipeline run` would do with some options.

    Args:
        options: parameters of ``flows.pipeline.care_pipeline``, by name.

    Returns:
        As ``plan`` does.

    Raises:
        Misuse: Something of it cannot be done.
    """
    experiment = experiment_of_options(options)
    for note in experiment.notes:
        warn(note)
    return plan(experiment, options.get("refresh") or ())


def experiment_of_options(options: Mapping[str, Any]) -> Experiment:
    """The experiment of some options of `care pipeline run`, checked before anything starts.

    Args:
        options: parameters of ``flows.pipeline.care_pipeline``, by name.

    Raises:
        Misuse: Something of it cannot be done.
        ShardError: There are no images where they are said to be.
        CareError: An encoder cannot be had.
    """
    graph.check_refresh(options.get("refresh") or ())
    fields = {name: options[name] for name in flat_parameters(Experiment) if name in options}
    experiment = Experiment(**gathered(Experiment, fields))
    graph.check_evaluations(experiment)
    check_encoders(experiment)
    return experiment


def plan(experiment: Experiment, refresh: Collection[str] = ()) -> list[PlannedStage]:
    """What would run, what is cached, and what is left out.

    Args:
        experiment: of which this is asked.
        refresh: kinds and groups of stages that would be done again.

    Returns:
        All stages in the order of the graph, then what is left out. While the data are not built,
        it is supposed that every share of the labels suffices to be fine-tuned on.

    Raises:
        Misuse: ``refresh`` names no stages.
        ShardError: Train and val are built and have different classes.
    """
    graph.check_refresh(refresh)
    look_up = _LookUp(experiment.out, refresh)
    data = graph.data_stages(experiment)
    lines = [look_up.line(stage) for stage in data]
    facts = Facts.before(experiment)
    if {*experiment.split.parts} <= look_up.results.keys():
        facts = Facts.of(experiment, look_up.results)
    training = training_stages(experiment, facts)
    judging = graph.judging_stages(experiment, facts)
    lines += [look_up.line(stage) for stage in (*training, *judging)]
    page = graph.unresolved_report_stage(stage.name for stage in (*data, *training, *judging))
    if page.needs() <= look_up.results.keys():
        page = graph.report_stage(experiment, facts, look_up.results, judging)
    lines.append(look_up.line(page))
    return lines + [_left_out(text) for text in (*experiment.skipped, *facts.skipped)]


def _left_out(text: str) -> PlannedStage:
    """The line of what is left out, of "what: why"."""
    what, _, why = text.partition(": ")
    return PlannedStage(what, "", "left out", why)


class _LookUp:
    """Looks stages up, one after the other.

    Args:
        out: folder of the pipeline, path or URL.
        refresh: kinds and groups of stages that would be done again.
    """

    def __init__(self, out: str, refresh: Collection[str]) -> None:
        self.results = dict[str, Result]()  # of stages that are cached, by name
        self._out = out
        self._refresh = refresh

    def line(self, stage: Stage) -> PlannedStage:
        """What would become of a stage."""
        # where its cache is decides nothing, and need not be there
        deciding = {n: v for n, v in stage.inputs.items() if n not in records.FREE_INPUTS}
        stage = replace(stage, inputs=deciding)
        missing = sorted(stage.needs() - self.results.keys())
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return PlannedStage(stage.name, stage.kind, "to run", f"after {missing[0]}{more}")
        inputs = stage.resolved(self.results.__getitem__)
        keyed = records.key_stage(self._out, stage.name, stage.work, inputs)
        name = Path(keyed.url).name
        result = records.finished_result(keyed)
        if result is None:
            if storage.listing(keyed.url, deep=True):
                return PlannedStage(name, stage.kind, "to continue", "it was stopped before")
            return PlannedStage(name, stage.kind, "to run", "nothing equal is finished")
        if stage.is_named_in(self._refresh):
            return PlannedStage(name, stage.kind, "to run", "it is to be done again")
        self.results[stage.name] = result
        return PlannedStage(name, stage.kind, "cached", str(result["text"]))
