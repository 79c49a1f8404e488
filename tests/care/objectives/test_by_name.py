from dataclasses import replace
import pytest
import torch
from care import BYOL, MoCoV1, MoCoV2, SwAV
from care.objectives.by_name import OBJECTIVES, objective_for


@pytest.mark.parametrize("name", OBJECTIVES)
def test_of_imagenet_every_objective_is_that_of_its_paper(name):
    published = OBJECTIVES[name]()
    fitted = objective_for(name, hidden=published.hidden, images=1_281_167, batch_size=4096)
    if name == "swav":
        assert fitted.frozen_steps == 312  # of the released code's 313 the last is a part
        fitted = replace(fitted, frozen_steps=published.frozen_steps)
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


def test_moco_v1_has_one_direction_and_v2_both():
    """He et al. 2020, Algorithm 1; Chen and He 2021, Table 4."""
    assert not objective_for("moco-v1", images=100, batch_size=8).symmetric
    assert objective_for("moco-v2", images=100, batch_size=8).symmetric
    # a key of one view an image: the queue need not hold twice the batch
    queue = objective_for("moco-v1", images=100, batch_size=8, queue=24)
    queue.criterion().check(8)


def test_objectives_without_a_state_are_as_they_are():
    assert objective_for("byol", hidden=16, images=10, batch_size=4) == BYOL(hidden=16)
