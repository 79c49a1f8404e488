"""Attention inside the objects of procedural scenes, whose masks are known."""

import numpy as np
from care.evaluate.resampling import resampled_mean
from care.show import AttentionShare, attention_shares
from flows.result import Result
from flows.works.encoders import loaded_encoder
from flows.works.rendered import render_scenes
from shards.image_size import ImageSize

_HOW = "share of the label-free Grad-CAM of the last stage inside the objects' masks"


def attention(
    out: str,
    *,
    encoder: str,
    start: int,
    count: int,
    size: ImageSize,
    seed: int = 0,
    scene_seed: int | None = None,
) -> Result:
    """Share of an encoder's attention inside the objects of the procedural scenes.

    Args:
        out: the stage's folder; nothing is left there.
        encoder: source of it.
        start: number of the first scene.
        count: scenes.
        size: of the crops, pixels.
        seed: of an encoder that is initialised here.
        scene_seed: of the scenes; None: the same.

    Returns:
        The row, with the share by draw of resampled scenes.
    """
    seed_of_scenes = seed if scene_seed is None else scene_seed
    rendered = render_scenes(seed_of_scenes, start, count)
    masks = [np.any(of_objects, axis=0) for of_objects in rendered.masks]
    shares = attention_shares(loaded_encoder(encoder, seed), rendered.images, masks, size=size)
    share = AttentionShare(*(100 * float(part.mean()) for part in shares))
    protocol = (
        f"{_HOW}, mean over {count} scenes; a map without preference would have {share.area:.1f} %"
    )
    row = {"task": "attention inside objects", "protocol": protocol, **share._asdict()}
    row["resampled"] = resampled_mean(shares.inside)
    return {"rows": [row], "text": f"{share.inside:.1f} % inside"}
