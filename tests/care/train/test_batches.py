import itertools
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as pil_ops
import shards
from care.train import View, batches

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
