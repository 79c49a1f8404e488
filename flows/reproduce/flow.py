"""The flow `care-reproduce`: arms × seeds, each pre-trained and judged alike, and what they say.

Every stage is cached by content as the pipeline's are: a grid that was stopped or killed is
continued by the same call, here or on another machine with the same bucket, and a grid with more
arms or seeds computes only those. ``care_reproduce.fn`` is the same without Prefect.
"""

from prefect import flow
from flows.reproduce.arms import CARE, REFERENCE, chosen_arms
from flows.reproduce.board import Board
from flows.reproduce.campaign import do_grid
from flows.reproduce.images import ImageChoice, grid_images, label_counts
from flows.reproduce.laboratory import Laboratory, build_sets
from flows.reproduce.regime import (
    FewLabels,
    ProtocolName,
    RegimeChanges,
    regime_for,
    skipped_shares,
)
from flows.reproduce.runs import Grid, Run, reference_arm
from flows.result import Result
from flows.runners import Runner
from flows.schedule import Schedule
from shards.bounds import (
    BatchSize,
    Fraction,
    NonNegativeInt,
    PixelSide,
    PositiveFloat,
    PositiveInt,
)


@flow(name="care-reproduce", persist_result=False)
def care_reproduce(
    *,
    out: str = "reproduce",
    arms: tuple[str, ...] = (REFERENCE, CARE),
    seeds: tuple[int, ...] = (0, 1, 2),
    reference: str | None = None,
    images: str | None = None,
    val: str | None = None,
    screen: Fraction = 0,
    protocol: ProtocolName | None = None,
    encoder: str | None = None,
    size: PixelSide | None = None,
    hidden: PositiveInt | None = None,
    steps: PositiveInt | None = None,
    epochs: PositiveInt | None = None,
    batch_size: BatchSize | None = None,
    lr: PositiveFloat | None = None,
    momentum: Fraction | None = None,
    compute_ratio: PositiveFloat | None = None,
    labels: tuple[float, ...] = (0.01, 0.1),
    finetune_steps: PositiveInt = 50,
    trials: PositiveInt = 1,
    train_scenes: PositiveInt = 2000,
    val_scenes: PositiveInt = 400,
    checkpoint_every: PositiveInt = 500,
    jobs: NonNegativeInt = 0,
    workers: NonNegativeInt | None = None,
    runner: Runner = "threads",
    stall_minutes: PositiveFloat = 60,
) -> Result:
    """A grid of experiments: arms × seeds, pre-trained and judged alike, with error bars.

    Every run is judged by kNN, a linear probe on cached features, fine-tuning on few labels and,
    on procedural scenes, by how much of the attention lies inside their objects. What is finished
    is kept run by run in OUT/results; stopped or killed, the same command goes on. Nothing is
    chosen on val.

    Args:
        out: folder of all that is made, a path or URL; grids share what is equal in them.
        arms: what to compare, see docs/reproduce.md for all: c-stream, care, lambda-0, …,
            or groups of them: main, lambda, blocks, positions, taps, ….
        seeds: of weights, order, views and evaluations, a run each.
        reference: arm from which the others' differences are; by default c-stream, else care.
        images: class folders, or train beside val folders of them, or shards; else scenes.
        val: labelled images to judge on, where they are not beside those to train on.
        screen: share of train that is judged on instead of val, which stays untouched.
        protocol: quick, the default for scenes, photos, that for images, or the paper's.
        encoder: a name as for care pretrain; by default that of the protocol, like what follows.
        size: side of the views and of the evaluation's crops, pixels.
        hidden: hidden width of projectors and predictors (the paper 4096).
        steps: pre-training steps.
        epochs: passes over the images to train on, instead of steps.
        batch_size: images a step, at most the training set.
        lr: base learning rate for 256 images.
        momentum: first momentum coefficient of the targets.
        compute_ratio: CARE's time over the C-stream's, by default as the finished runs took.
        labels: shares of the training labels to fine-tune on.
        finetune_steps: steps of each fine-tuning, about, if the protocol is not the paper's.
        trials: fine-tunings of each run, whose mean counts.
        train_scenes: procedural scenes to train on.
        val_scenes: procedural scenes to judge on.
        checkpoint_every: steps between checkpoints.
        jobs: runs at a time; 0: one a GPU, or one a core, at most four.
        workers: processes that decode images, beside each process that computes.
        runner: maps shard building and features over Prefect's threads, or Dask or Ray workers.
        stall_minutes: without any progress, after which a stage is stopped and tried again.

    Returns:
        What ``out/reproduce.json`` holds.
    """
    compared_arms = chosen_arms(arms)
    runs = tuple(Run(arm, seed) for seed in dict.fromkeys(seeds) for arm in compared_arms)
    grid = Grid(runs, reference_arm(reference, compared_arms), compute_ratio)
    few_labels = FewLabels(labels, finetune_steps, trials)
    few_labels.check()
    choice = ImageChoice(images, val, screen, train_scenes, val_scenes)
    shared = grid_images(choice, out)
    changes = RegimeChanges(encoder, size, hidden, steps, epochs, batch_size, lr, momentum)
    changes.check()
    with Schedule(out, jobs=jobs, stall=60 * stall_minutes, runner=runner) as chain:
        sets = build_sets(chain, shared)
        regime = regime_for(
            protocol or ("photos" if images else "quick"),
            changes,
            few_labels,
            images=sets["train"]["counts"]["kept"],
        )
        counts = label_counts(sets, labels)
        lab = Laboratory(chain, regime, shared, sets, counts, workers, checkpoint_every)
        board = Board(out, shared.title, grid, skipped_shares(labels, counts))
        return do_grid(lab, grid, board)
