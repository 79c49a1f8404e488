"""The flow `care-pipeline`: images → shards → pre-training → evaluation → report.

Every stage is cached by content. ``care_pipeline.fn`` is the same chain without Prefect, with the
same results to the byte; ``tests/flows/test_pipeline.py`` holds both.
"""

from collections.abc import Mapping
from prefect import flow
from flows import graph
from flows.checks import check_encoders
from flows.cpu_hours import hours_of_pipeline
from flows.execution import Execution
from flows.experiment import Detection, Experiment, Images, Judging, Scenes, Training
from flows.facts import Facts
from flows.flatten import flattened
from flows.result import Result
from flows.schedule import Schedule
from flows.trainings import MAIN_STAGE, recipes_of, training_stages
from shards import locks, storage
from shards.bounds import NonNegativeInt
from shards.once import forget_listings, listing_once
from shards.progress import say, warn

SECONDS_FOR_ANOTHER = 600  # that a run waits for another one which copies its results there


@flow(name="care-pipeline", persist_result=False)
@flattened
@listing_once()
def care_pipeline(
    *,
    out: str = "demo",
    images: Images,
    training: Training,
    judging: Judging,
    detection: Detection,
    scenes: Scenes,
    seed: NonNegativeInt = 0,
    execution: Execution,
) -> Result:
    """Images → shards → CARE pre-training → evaluation → report, all in one folder.

    The evaluations are kNN, linear, fine-tuning on few labels, detection and segmentation, beside
    random initialisation, and where images have boxes or masks, as the procedural scenes, the
    default images, have, also how much of the attention lies inside their objects. Scenes also have
    the C-stream trained alone. Run again, it redoes nothing that is finished.

    Args:
        out: folder of all that is made, a path or URL; experiments share what is equal in them.
        images: what is trained and evaluated on.
        training: how encoders are pre-trained.
        judging: how they are judged.
        detection: annotated images.
        scenes: which stand for images.
        seed: of everything random.
        execution: how stages are run.

    Returns:
        What ``out/results.json`` holds.
    """
    experiment = Experiment(
        out=out,
        images=images,
        training=training,
        judging=judging,
        detection=detection,
        scenes=scenes,
        seed=seed,
    )
    graph.check_refresh(execution.refresh or ())
    graph.check_evaluations(experiment)
    check_encoders(experiment)
    for line in (*experiment.notes, *experiment.split.skipped, *hours_of_pipeline(experiment)):
        warn(line)
    with Schedule(out, execution) as schedule:
        schedule.announce(graph.planned_stages(experiment, Facts.before(experiment)))
        results = schedule.run(graph.data_stages(experiment))
        forget_listings()
        facts = Facts.of(experiment, results)
        for name, recipe in recipes_of(experiment, facts).items():
            say(f"{name}: {recipe['text']}")
        schedule.announce(graph.planned_stages(experiment, facts))
        results |= schedule.run(training_stages(experiment, facts))
        judged = graph.judging_stages(experiment, facts)
        results |= schedule.run(judged, keep_going=True)
        results |= schedule.run([graph.report_stage(experiment, facts, results, judged)])
        return publish(out, results)


def publish(out: str, results: Mapping[str, Result]) -> Result:
    """Copy what a run is about to where it is looked for: the page's files and the encoder.

    Args:
        out: folder of the pipeline, path or URL.
        results: of its stages.

    Returns:
        What ``results.json`` holds.
    """
    page = results["report"]
    folders = dict.fromkeys(page["outputs"], page["url"])
    folders["encoder.safetensors"] = results[MAIN_STAGE]["url"]
    lock = f"{out}/stages/.results"
    with locks.exclusive(lock, "copying results into", patience=SECONDS_FOR_ANOTHER):
        for name, folder in folders.items():
            storage.copy(f"{folder}/{name}", f"{out}/{name}")
        return dict(storage.read_json(f"{out}/results.json"))
