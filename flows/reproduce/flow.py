"""The flow `care-reproduce`: arms × seeds, each pre-trained and judged alike, and what they say.

Every stage is cached by content as the pipeline's are: a grid that was stopped or killed is
continued by the same call, here or on another machine with the same bucket, and a grid with more
arms or seeds computes only those. ``care_reproduce.fn`` is the same without Prefect.
"""

from prefect import flow
from flows.flatten import flattened
from flows.protocols import PROTOCOLS, ProtocolName
from flows.recipes import BYOL, PLAIN_OPTIMIZER, check_small_crops
from flows.reproduce.board import Board
from flows.reproduce.campaign import do_grid
from flows.reproduce.images import ImageChoice, grid_images, label_counts
from flows.reproduce.laboratory import GridMachine, Laboratory, build_objects, build_sets
from flows.reproduce.regime import (
    OF_MASKS,
    FewLabels,
    Judging,
    RegimeChoice,
    regime_for,
    skipped_shares,
)
from flows.reproduce.runs import ArmChoice, Grid
from flows.result import Result
from flows.schedule import Schedule


@flow(name="care-reproduce", persist_result=False)
@flattened
def care_reproduce(
    *,
    out: str = "reproduce",
    arm_choice: ArmChoice,
    image_choice: ImageChoice,
    regime_choice: RegimeChoice,
    few_labels: FewLabels,
    judging: Judging,
    machine: GridMachine,
) -> Result:
    """A grid of experiments: arms × seeds, pre-trained and judged alike, with error bars.

    Every run is judged by kNN, a linear probe on cached features, fine-tuning on few labels and,
    on procedural scenes, by where its attention lies, or by some of these. What is finished is kept
    run by run in OUT/results; stopped or killed, the same command goes on. Nothing is chosen on
    val.

    Args:
        out: folder of all that is made, a path or URL; grids share what is equal in them.
        arm_choice: what is compared.
        image_choice: on which images.
        regime_choice: how runs are trained and judged.
        few_labels: how they are fine-tuned.
        judging: by what they are judged.
        machine: what decides no result.

    Returns:
        What ``out/reproduce.json`` holds.

    Raises:
        Misuse: What was asked for contradicts itself; told before anything starts.
    """
    grid = checked_grid(arm_choice, regime_choice, few_labels, judging)
    images = grid_images(image_choice, out)
    has_masks = images.scenes is not None
    # of photographs without one, before sets are built
    _ = judging.possible(has_masks=has_masks, has_few_labels=True)
    with Schedule(out, machine.execution()) as schedule:
        sets = build_sets(schedule, images)
        default_protocol: ProtocolName = "quick" if images.scenes else "photos"
        regime = regime_for(
            regime_choice,
            few_labels,
            default_protocol=default_protocol,
            images=sets["train"]["counts"]["kept"],
        )
        counts = label_counts(sets, few_labels.labels)
        evaluations = judging.possible(has_masks=has_masks, has_few_labels=bool(counts))
        lab = Laboratory(
            schedule,
            regime,
            images,
            sets,
            counts,
            machine,
            PROTOCOLS[regime_choice.protocol or default_protocol],
            regime_choice.recipe_changes,
            evaluations,
            build_objects(schedule, images) if {*OF_MASKS} & {*evaluations} else None,
        )
        is_tuned = "finetune" in judging.evaluations
        skipped = skipped_shares(few_labels.labels, counts) if is_tuned else []
        board = Board(out, images.title, grid, skipped)
        return do_grid(lab, grid, board)


def checked_grid(
    arm_choice: ArmChoice,
    regime_choice: RegimeChoice,
    few_labels: FewLabels,
    judging: Judging,
) -> Grid:
    """The grid that was asked for, whose runs can be trained and judged.

    Args:
        arm_choice: what is compared.
        regime_choice: how runs are trained and judged.
        few_labels: how they are fine-tuned.
        judging: by what they are judged.

    Raises:
        Misuse: What was asked for contradicts itself.
        CareError: An encoder cannot be had, or an optimizer's library is not installed.
    """
    grid = Grid.of(arm_choice)
    regime_choice.check()
    check_small_crops(regime_choice.small_crops, [run.arm.objective for run in grid.runs])
    check_encoder_of_arms(regime_choice, grid)
    few_labels.check()
    judging.check()
    return grid


def check_encoder_of_arms(choice: RegimeChoice, grid: Grid) -> None:
    """Refuse an encoder that some of the arms cannot train, before anything starts.

    Args:
        choice: how runs were asked to be trained.
        grid: of the arms.

    Raises:
        Misuse: It is no CNN, and an arm has a T-stream; or an arm wants two.
        CareError: It cannot be made, or the optimizer of an arm cannot.
    """
    arms = {run.arm.name: run.arm for run in grid.runs}.values()
    is_plain = choice.optimizer in (None, PLAIN_OPTIMIZER)
    if is_plain and choice.encoder is None and all(arm.objective == BYOL for arm in arms):
        return
    # imports torch, which takes seconds: only where somebody has named something
    from care.train.checks import check_encoder, check_method, check_optimizer

    protocol = choice.over(PROTOCOLS[choice.protocol or "photos"])
    for arm in arms:
        if arm.trained:
            check_method(protocol.encoder, arm.objective, t_stream=arm.t_stream)
            check_optimizer(arm.objective, choice.optimizer)
    for encoder in dict.fromkeys(arm.encoder(protocol.encoder) for arm in arms):
        check_encoder(encoder, size=protocol.size, init=None)
