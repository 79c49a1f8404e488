"""Objectives by name, those with a queue or prototypes fitted to a set of images."""

from dataclasses import replace
from care.errors import CareError
from care.objectives.barlow_twins import BarlowTwins
from care.objectives.byol import BYOL
from care.objectives.cmc import CMC
from care.objectives.infomin import InfoMin
from care.objectives.moco import MoCoV1, MoCoV2
from care.objectives.moco_v3 import MoCoV3
from care.objectives.objective import Objective
from care.objectives.pirl import PIRL
from care.objectives.simclr import SimCLR
from care.objectives.simsiam import SimSiam
from care.objectives.swav import SwAV
from care.objectives.vit_heads import BYOLViT, MoCoV3ViT

# with the numbers of their papers, for ImageNet
OBJECTIVES: dict[str, Objective] = {
    "byol": BYOL(),
    "simsiam": SimSiam(),
    "simclr": SimCLR(),
    "moco-v1": MoCoV1(),
    "moco-v2": MoCoV2(),
    "moco-v3": MoCoV3(),
    "swav": SwAV(),
    # of batch 256, whose embeddings share the prototypes with those of 15 batches before
    "swav-256": SwAV(queue=3840),
    "barlow-twins": BarlowTwins(),
    "infomin": InfoMin(),
    "pirl": PIRL(),
    # by InfoMin's authors, of the detection rows of Tables 4 and 5
    "pirl-pycontrast": PIRL(contrast="softmax", negatives=65_536),
    "cmc": CMC(),
    "byol-vit": BYOLViT(),
    "moco-v3-vit": MoCoV3ViT(),
}
# of which a prototype is the mean, at least: ImageNet has 427
IMAGES_OF_A_PROTOTYPE = 10
# from which on SwAV's released code keeps a queue, counted from 0
EPOCH_OF_QUEUE = 15


def objective_for(
    name: str,
    *,
    hidden: int | None = None,
    images: int,
    batch_size: int,
    queue: int | None = None,
) -> Objective:
    """Make the objective of a name, in proportion to the images that it is trained on.

    The papers' queues and prototypes are for ImageNet. Of a small set a queue of 65,536 would hold
    every image many times, each then told from itself: it is cut to one key an image, in whole
    batches, and prototypes to one for ten images. These rules are ours. Prototypes rest for one
    epoch, as in the released code at batch 4,096. A queue of SwAV's, where one is wanted, begins
    with epoch 15, as there. A bank has a place for each image of the set.

    Args:
        name: key of ``OBJECTIVES``.
        hidden: channels between the layers of the heads; by default the paper's.
        images: to train on.
        batch_size: images a step.
        queue: embeddings of earlier batches, of an objective that keeps them; by default in
            proportion, as above, of swav none.

    Raises:
        CareError: The objective keeps no queue.
    """
    objective = OBJECTIVES[name]
    if hidden is not None:
        # all have it
        objective = replace(objective, hidden=hidden)
    if isinstance(objective, MoCoV2):
        keys = 2 * batch_size if objective.symmetric else batch_size
        return replace(objective, queue=queue or _whole_batches(objective.queue, images, keys))
    if isinstance(objective, SwAV):
        prototypes = min(objective.prototypes, max(images // IMAGES_OF_A_PROTOTYPE, 2))
        epoch = max(images // batch_size, 1)
        fitted = replace(objective, prototypes=prototypes, frozen_steps=epoch)
        if queue is None and not objective.queue:
            return fitted
        queue = queue or _whole_batches(objective.queue, images, batch_size)
        return replace(fitted, queue=queue, queue_from=EPOCH_OF_QUEUE * epoch)
    if queue is not None:
        raise CareError(
            "wanted a queue for an objective that keeps one, moco-v1, moco-v2, infomin or swav; "
            f"got {name}"
        )
    if isinstance(objective, PIRL | CMC):
        return replace(objective, images=images, negatives=min(objective.negatives, images))
    return objective


def _whole_batches(queue: int, images: int, keys: int) -> int:
    """The length of a queue of at most one key an image, in whole batches and at least one."""
    return max(min(queue, images) // keys * keys, keys)
