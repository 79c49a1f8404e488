from dataclasses import replace
import pytest
import torch
from care import BYOL, PIRL, MoCoV1, MoCoV2, SwAV
from care.objectives.by_name import OBJECTIVES, objective_for


@pytest.mark.parametrize("name", OBJECTIVES)
def test_of_imagenet_every_objective_is_that_of_its_paper(name):
    published = OBJECTIVES[name]
    fitted = objective_for(name, hidden=published.hidden, images=1_281_167, batch_size=4096)
    if name == "swav":
        assert fitted.frozen_steps == 312  # of the released code's 313 the last is a part
    if name.startswith("swav"):
        fitted = replace(fitted, frozen_steps=published.frozen_steps, queue_from=0)
    if name == "swav-256":  # at batch 4,096 a queue holds a batch
        assert fitted.queue == 4096
        fitted = replace(fitted, queue=published.queue)
    assert fitted == published


@pytest.mark.parametrize(
    ("images", "batch_size", "queue"), [(9469, 64, 9344), (500, 32, 448), (40, 32, 64)]
)
def test_a_queue_holds_whole_batches_and_at_most_a_key_an_image(images, batch_size, queue):
    fitted = objective_for("moco-v2", hidden=16, images=images, batch_size=batch_size)
    assert fitted == MoCoV2(hidden=16, queue=queue)
    fitted.criterion().check(batch_size)
    assert isinstance(objective_for("moco-v1", hidden=8, images=9, batch_size=4), MoCoV1)


@pytest.mark.parametrize(("images", "prototypes", "frozen"), [(9469, 946, 147), (24, 2, 1)])
def test_prototypes_are_fewer_than_images_and_rest_for_an_epoch(images, prototypes, frozen):
    fitted = objective_for("swav", hidden=16, images=images, batch_size=64)
    assert fitted == SwAV(hidden=16, prototypes=prototypes, frozen_steps=frozen)


def test_a_queue_of_swav_is_kept_from_epoch_15_on():
    fitted = objective_for("swav", hidden=16, images=100, batch_size=8, queue=16)
    assert (fitted.queue, fitted.queue_from) == (16, 15 * 12)
    criterion = objective_for("swav", hidden=16, images=4, batch_size=4, queue=4).criterion()
    for step in range(17):
        assert int(criterion.queues[0].taken) == 4 * max(step - 15, 0)
        views = torch.randn(2, 4, 128)
        criterion(tuple(views), tuple(views))
        criterion.after_step()


def test_swav_of_batch_256_keeps_fifteen_batches_from_epoch_15_on():
    """As in swav_200ep_bs256_pretrain.sh: 3,840 features, prototypes that rest for an epoch."""
    fitted = objective_for("swav-256", images=1_281_167, batch_size=256)
    assert (fitted.queue, fitted.queue_from) == (3840, 15 * 5004)
    assert fitted.frozen_steps == 5004  # the released code counts the last batch, a part, too
    small = objective_for("swav-256", images=500, batch_size=32)
    assert (small.queue, small.prototypes) == (480, 50)
    assert objective_for("swav-256", images=500, batch_size=32, queue=64).queue == 64


def test_pirl_of_pycontrast_tells_each_image_from_others_by_a_softmax():
    fitted = objective_for("pirl-pycontrast", images=1_281_167, batch_size=256)
    wanted = PIRL(contrast="softmax", negatives=65_536)
    assert fitted == wanted
    assert (wanted.temperature, wanted.bank_momentum, wanted.patches_weight) == (0.07, 0.5, 0.5)


def test_moco_v1_has_one_direction_and_v2_both():
    """He et al. 2020, Algorithm 1; Chen and He 2021, Table 4."""
    assert not objective_for("moco-v1", images=100, batch_size=8).symmetric
    assert objective_for("moco-v2", images=100, batch_size=8).symmetric
    # a key of one view an image: the queue need not hold twice the batch
    queue = objective_for("moco-v1", images=100, batch_size=8, queue=24)
    queue.criterion().check(8)


def test_objectives_without_a_state_are_as_they_are():
    assert objective_for("byol", hidden=16, images=10, batch_size=4) == BYOL(hidden=16)
