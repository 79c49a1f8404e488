"""Statistics before the test, and what is found in pictures."""

import shutil
from importlib import import_module
import numpy as np
import pytest
import torch
from detecting import STEPS, box_set, make_model, model_at, naive_batch, paint, result, train
from processes import together
from pycocotools.mask import decode
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
import shards
from care.evaluate.inference import average_statistics, find_objects, paste_mask
from care.evaluate.pictures import Examples, ResizedPicture, draw_picture

module = import_module("care.evaluate.detect")


def test_statistics_are_the_mean_over_the_first_batches(sets):
    model, kept = make_model().train(), {}

    def keep(name, layer, inputs):
        x = inputs[0].transpose(0, 1).flatten(1).double()
        kept.setdefault(name, []).append((x.mean(1), x.var(1)))

    batches = [naive_batch(sets[0], step, batch=4, seed=5) for step in range(3)]
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)
    }
    for layer in layers.values():
        nn.init.constant_(layer.running_mean, 7)
    with torch.no_grad():
        average_statistics(model, batches, 12, 5)
        found = {
            name: (layer.running_mean.clone(), layer.running_var.clone())
            for name, layer in layers.items()
        }
        hooks = [
            layer.register_forward_pre_hook(lambda *args, name=name: keep(name, *args))
            for name, layer in layers.items()
        ]
        for step, batch in enumerate(batches):
            torch.manual_seed(int(np.random.default_rng((5, step, 0)).integers(2**63)))
            model(*batch)
    assert len(hooks) == len(kept) == 14
    for name, (mean, variance) in found.items():
        wanted = [
            torch.stack(of_batches).mean(0).float() for of_batches in zip(*kept[name], strict=True)
        ]
        assert len(kept[name]) == 3
        torch.testing.assert_close(mean, wanted[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(variance, wanted[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("precise", "wanted"), [(0, 0), (2, 2), (200, STEPS)])
def test_statistics_are_of_the_order_of_training_and_of_the_last_weights(
    whole, sets, tmp_path, monkeypatch, precise, wanted
):
    run = shutil.copytree(whole[0], tmp_path / "run")
    asked, models = [], []
    get = Examples.__getitem__
    monkeypatch.setattr(
        Examples, "__getitem__", lambda self, view: (asked.append(view), get(self, view))[1]
    )
    monkeypatch.setattr(
        module,
        "find_objects",
        lambda model, *args: (models.append(model), find_objects(model, *args))[1],
    )
    train(sets, run, precise=precise)
    sides = [26, 27, 28, 29, 31, 32]
    order = [shards.step_ids(24, batch_size=4, step=step, seed=0) for step in range(wanted)]
    averaged = [draw_picture(0, epoch, int(n), sides) for epoch, ids in order for n in ids]
    assert asked == averaged + [ResizedPicture(n, 32) for n in range(8)]
    (model,) = models
    assert not model.training
    saved_state, scored = model_at(run, STEPS), model.state_dict()
    changed = {name for name, value in scored.items() if not torch.equal(value, saved_state[name])}
    buffers = {
        name
        for name, _ in model.named_buffers()
        if "running" in name or (wanted != STEPS and "tracked" in name)
    }
    assert changed == (buffers if wanted else set())
    assert result(run) == result(whole[0])


class Oracle(nn.Module):
    """Knows what is in a picture from the red of its first pixel, in pixels of the resized one."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        answers = []
        for image in images:
            number, (height, width) = round(float(image[0, 0, 0]) * 255 / 40), image.shape[1:]
            found = torch.tensor(
                [[0.0, 0.0, width, height], [width / 4, height / 2, width / 2, height]]
            )[: number % 3]
            of = torch.arange(len(found))
            masks = torch.tensor([[9.0, -9.0], [9.0, -9.0]]).expand(len(found), 2, 2)
            answers.append(
                {"boxes": found, "scores": of / 10 + number / 100, "labels": of + 1, "masks": masks}
            )
        return answers


def painted(tmp_path):
    sizes = [(100, 80), (60, 200), (33, 47), (500, 20), (40, 40)]
    return sizes, box_set(
        *(
            paint(tmp_path / f"{n}.png", size, ground=(40 * n, 0, 0))
            for n, size in enumerate(sizes, 1)
        )
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_found_is_in_pixels_of_the_picture_and_in_order(tmp_path, workers):
    sizes, data = painted(tmp_path)
    found = find_objects(Oracle(), data, 48, workers)
    for n, (one, (width, height)) in enumerate(zip(found, sizes, strict=True), 1):
        wanted = [[0, 0, width, height], [width / 4, height / 2, width / 2, height]][: n % 3]
        np.testing.assert_allclose(one.boxes, np.array(wanted).reshape(-1, 4), rtol=1e-5)
        assert one.scores == pytest.approx([n / 100 + k / 10 for k in range(n % 3)])
        assert one.labels.tolist() == [0, 1][: n % 3]
        assert one.labels.dtype == np.int64
        for mask, (left, top, right, bottom) in zip(one.masks, wanted, strict=True):
            x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
            half = (left < x) & (x < (left + right) / 2) & (top < y) & (y < bottom)
            wrong = decode(mask).astype(bool) & ~half, half & ~decode(mask).astype(bool)
            assert wrong[0].sum() == 0
            assert wrong[1].any(0).sum() <= 1 + 0.04 * (right - left)  # columns before the middle


def test_processes_share_the_pictures_and_return_all(tmp_path):
    _, data = painted(tmp_path)

    def work():
        model, asked = Oracle(), []
        model.register_forward_hook(lambda *_: asked.append(1))
        return find_objects(model, data, 48), len(asked)

    (one, first), (two, second) = together(2, work)
    assert (first, second) == (3, 2)
    for found in (one, two):
        for got, wanted in zip(found, find_objects(Oracle(), data, 48), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_masks_are_interpolated_at_the_centres_of_pixels():
    """Against torchvision, which rounds boxes, at boxes of whole pixels; then by sampling."""
    generator = torch.Generator().manual_seed(0)
    for box in ([3, 5, 45, 40], [0, 0, 60, 50], [30, 10, 37, 44]):
        mask = nn.functional.interpolate(
            torch.rand(1, 1, 4, 4, generator=generator), (14, 14), mode="bilinear"
        )[0, 0]
        found = decode(paste_mask(mask, np.array(box, np.float32), (60, 50)))
        wanted = np.zeros((50, 60), bool)
        left, top, right, bottom = box
        padded = np.pad(mask.double().numpy(), 1)
        for y in range(top, bottom):
            for x in range(left, right):
                u, v = (
                    (x + 0.5 - left) / (right - left) * 14 + 0.5,
                    (y + 0.5 - top) / (bottom - top) * 14 + 0.5,
                )
                i, j = int(v), int(u)
                across = padded[i : i + 2, j : j + 2] @ [1 - (u - j), u - j]
                wanted[y, x] = (across * [1 - (v - i), v - i]).sum() >= 0.5
        assert (found != wanted).mean() < 0.002  # rounding at one half
        rounded = (
            paste_masks_in_image(
                mask[None, None], torch.tensor([box], dtype=torch.float32), (50, 60)
            )[0, 0]
            >= 0.5
        )
        assert (found != rounded.numpy()).mean() < 0.05
        assert 0 < found.sum() < (right - left) * (bottom - top)
    thin = decode(
        paste_mask(torch.ones(14, 14), np.array([10.2, 10.2, 10.4, 30.0], np.float32), (60, 50))
    )
    assert thin.shape == (50, 60)
