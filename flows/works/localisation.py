"""Whether an encoder finds the objects of procedural scenes, whose masks are known."""

from torch import Tensor
from care.evaluate.localisation import LEAST_IOU, TOLERANCE, localise
from care.evaluate.resampling import resampled_mean
from flows.result import Result
from flows.works.encoders import loaded_encoder
from flows.works.rendered import render_scenes
from shards.image_size import ImageSize


def localisation(
    out: str,
    *,
    encoder: str,
    start: int,
    count: int,
    size: ImageSize,
    seed: int = 0,
    scene_seed: int = 0,
) -> Result:
    """The pointing game and CorLoc of an encoder on the procedural scenes.

    Args:
        out: the stage's folder; nothing is left there.
        encoder: source of it.
        start: number of the first scene.
        count: scenes.
        size: of the crops, pixels.
        seed: of an encoder that is initialised here.
        scene_seed: of the scenes.

    Returns:
        A row for each of both, with what chance would have and the figures by draw of resampled
        scenes.
    """
    images, masks = render_scenes(scene_seed, start, count)
    by_scene = localise(loaded_encoder(encoder, seed), images, masks, size=size)
    pointing = _row("pointing game", "pointing", by_scene.pointing, by_scene.pointing_chance)
    pointing["protocol"] = (
        "share of the maxima of the label-free Grad-CAM of the last stage that lie on an object, or"
        f" at most {100 * TOLERANCE:g} % of the image's side beside it, over {count} scenes;"
        f" random points have {pointing['chance']:.1f} %"
    )
    corloc = _row("CorLoc", "corloc", by_scene.box, by_scene.box_chance)
    corloc["protocol"] = (
        f"share of {count} scenes in which one box, found by LOST, has an IoU of at least"
        f" {LEAST_IOU:g} with an object's; the whole crop as the box has {corloc['chance']:.1f} %"
    )
    text = f"{pointing['pointing']:.1f} % point at objects, {corloc['corloc']:.1f} % of boxes fit"
    return {"rows": [pointing, corloc], "text": text}


def _row(task: str, measure: str, figures: Tensor, chance: Tensor) -> Result:
    """A row of a measure, which is the mean of a figure from 0 to 1 over scenes."""
    return {
        "task": task,
        measure: 100 * float(figures.mean()),
        "chance": 100 * float(chance.mean()),
        "resampled": resampled_mean(figures),
    }
