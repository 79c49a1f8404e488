import copy
import itertools
import pickle
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as pil_ops
import shards
from care.train import VIEWS, View, batches
from care.train.views import multi_crop

WHOLE = View(scale=(1, 1), ratio=(1, 1), jitter_p=0, blur_p=0, gray_p=0, flip_p=0, solarize_p=0)
SETTINGS = {"size": 32, "batch_size": 5, "steps": 7}  # four steps an epoch


def read(data, **changes):
    return [(step, torch.stack(views)) for step, views in batches(data, **SETTINGS | changes)]


def equal(some, others):
    return len(some) == len(others) and all(
        i == j and torch.equal(x, y) for (i, x), (j, y) in zip(some, others, strict=True)
    )


def test_the_views_are_those_of_the_steps_samples(data):
    views = (WHOLE, WHOLE._replace(flip_p=1))
    for step, (one, two) in batches(data, **SETTINGS, seed=3, views=views):
        _, ids = shards.step_ids(24, batch_size=5, step=step, seed=3)
        pictures = [data.image(i).resize((32, 32), Image.Resampling.BILINEAR) for i in ids]
        for got, want in ((one, pictures), (two, map(ImageOps.mirror, pictures))):
            normal = [
                pil_ops.normalize(
                    pil_ops.to_tensor(p), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
                )
                for p in want
            ]
            difference = (
                (got - torch.stack(normal)).abs() * 0.225 * 255
            )  # levels; the resizing rounds otherwise than Pillow's
            assert difference.max() < 2.1
            assert difference.mean() < 0.2
    assert step == 6


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3, 6])
def test_a_step_has_the_same_bits_whatever_the_workers_and_the_start(data, workers, start):
    want = read(data)
    assert [step for step, _ in want] == list(range(7))
    assert equal(read(data, workers=workers, start=start), want[start:])


def test_a_run_that_is_over_has_no_more_steps(data):
    assert read(data, start=7) == []


def test_the_length_of_the_run_does_not_change_its_steps(data):
    assert equal(read(data, steps=40)[:7], read(data))


def test_other_seeds_and_epochs_have_other_views(data):
    by_seed = [read(data, seed=seed)[0][1] for seed in (0, 1)]
    assert not torch.equal(*by_seed)
    views = {}
    for step, (one, two) in batches(data, **SETTINGS | {"steps": 8}):
        _, ids = shards.step_ids(24, batch_size=5, step=step, seed=0)
        for sample, x, y in zip(ids.tolist(), one, two, strict=True):
            views.setdefault(sample, []).extend([x, y])
    pairs = [pair for seen in views.values() for pair in itertools.combinations(seen, 2)]
    assert len(pairs) > 80
    assert not any(torch.equal(x, y) for x, y in pairs)


def test_fewer_images_than_a_batch_are_refused(data):
    with pytest.raises(
        shards.ShardError,
        match="batch 0 of 25 samples, got a set of 24; use a batch size from 1 to 24",
    ):
        read(data, batch_size=25)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_stops_with_its_shard_and_key(damaged_set, workers):
    data = shards.open(damaged_set)
    ids = [shards.step_ids(24, batch_size=5, step=step, seed=0).ids for step in range(7)]
    first = next(step for step, row in enumerate(ids) if 13 in row)
    done = []
    with pytest.raises(
        shards.ShardError,
        match=rf"sample 13 \('{data.keys[13]}'\) of .*shard-000001\.tar is damaged.*crc32",
    ):
        done.extend(
            step for step, _ in batches(data, **SETTINGS, workers=workers)
        )  # what came before the error stays in the list
    assert done == list(range(first))


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_not_used(data, workers, untouched_generator):
    want, before = read(data, workers=workers), np.random.get_state()[1].tolist()
    torch.rand(7)
    with untouched_generator():
        assert equal(read(data, workers=workers), want)
    assert np.random.get_state()[1].tolist() == before


def test_views_have_their_own_sizes_and_further_ones_move_none_of_the_first(data):
    small = VIEWS[1]._replace(size=16, scale=(0.05, 0.14))
    alone = batches(data, **SETTINGS | {"steps": 5})
    among = batches(data, **SETTINGS | {"steps": 5}, views=(*VIEWS, small, small))
    for (_, pair), (_, views) in zip(alone, among, strict=True):
        assert [view.shape[2:] for view in views] == [(32, 32)] * 2 + [(16, 16)] * 2
        assert all(map(torch.equal, pair, views[:2]))
        assert not torch.equal(views[2], views[3])


def test_a_small_view_is_a_small_crop_of_the_sample(data):
    views = (WHOLE, WHOLE, WHOLE._replace(size=8))
    _, batch = next(batches(data, **SETTINGS, views=views))
    for sample, got in zip(batch.samples.tolist(), batch[2], strict=True):
        small = data.image(sample).resize((8, 8), Image.Resampling.BILINEAR)
        want = pil_ops.to_tensor(small)
        levels = pil_ops.normalize(want, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert ((got - levels).abs() * 0.225 * 255).max() < 2.1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_tells_the_numbers_of_its_images(data, workers):
    for step, batch in batches(data, **SETTINGS, workers=workers):
        _, ids = shards.step_ids(24, batch_size=5, step=step, seed=0)
        assert batch.samples.tolist() == ids.tolist()
        x1, x2 = batch
        assert len(x1) == len(x2) == len(ids)


def test_a_batch_is_copied_with_its_samples(data):
    _, batch = next(batches(data, **SETTINGS))
    for twin in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(twin.samples, batch.samples)
        assert all(map(torch.equal, twin, batch))


def test_patches_are_those_of_all_nine_cells_in_a_random_order(data):
    """With patches as large as cells, all that is random is the order."""
    puzzle = WHOLE._replace(size=24, patch=8)
    orders = set()
    for _, batch in batches(data, **SETTINGS, views=(WHOLE._replace(size=24), puzzle)):
        for image, patches in zip(*batch, strict=True):
            cells = image.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).flatten(0, 1)
            order = []
            for patch in patches:
                (number,) = [n for n, cell in enumerate(cells) if torch.equal(cell, patch)]
                order.append(number)
            assert sorted(order) == list(range(9))
            orders.add(tuple(order))
    assert len(orders) > 30


def test_a_patch_lies_anywhere_in_its_cell(data):
    puzzle = WHOLE._replace(size=32, patch=8)  # cells of 10 px: each corner at 0, 1 or 2
    corners = set()
    for _, (image, puzzles) in batches(data, **SETTINGS, views=(WHOLE, puzzle)):
        patch, picture = puzzles[0, 0], image[0]
        windows = picture.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
        (place,) = (windows == patch).all((2, 3, 4)).nonzero().tolist()
        corners.update(side % 10 for side in place)
    assert corners == {0, 1, 2}


def test_patches_have_the_colours_of_their_view(data):
    bright = WHOLE._replace(jitter=(0.5, 0, 0, 0), jitter_p=1, size=24)
    _, batch = next(batches(data, **SETTINGS, views=(WHOLE._replace(size=24), bright)))
    _, (_, puzzles) = next(batches(data, **SETTINGS, views=(WHOLE, bright._replace(patch=8))))
    # a view of the same number draws the same numbers, whether it is seen whole or in patches
    for image, patches in zip(batch[1], puzzles, strict=True):
        cells = image.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).flatten(0, 1)
        for patch in patches:
            distances = (cells - patch).abs().amax((1, 2, 3))
            assert distances.min() < 1e-5


def test_multi_crop_is_swavs_by_default():
    views = multi_crop(View(jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5))
    assert [view.seen_size(224) for view in views] == [224, 224, 96, 96, 96, 96, 96, 96]
    assert [view.scale for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert {view.jitter for view in views} == {(0.8, 0.8, 0.8, 0.2)}
