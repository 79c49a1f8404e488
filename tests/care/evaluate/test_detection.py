import json
import os
import shutil
import signal
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection import FasterRCNN

import shards
from care import CareError, resnet18
from care.evaluate import detect
from care.evaluate.detection import LONGEST, _batches, _detections, _Examples, faster_rcnn
from care.train import Stopped, checkpoint
from care.train.run import Run
from shards import boxes, scenes
from shards.boxes import BoxSet, Picture

module = import_module("care.evaluate.detection")
STEPS = 6
SETTINGS = {
    "size": 32, "iterations": STEPS, "batch_size": 4, "lr": 0.2, "warmup": 2, "proposals": 16, "anchor_scale": 4, "channels": 8,
    "hidden": 16, "precision": "fp32", "device": "cpu", "checkpoint_every": 2,
}  # fmt: skip


def make_encoder(seed=0, **options):
    """In eval mode, as it comes from a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet18(**{"small": True, "half": True} | options).eval()


def make_model(classes=3, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"size": 32, "proposals": 16, "anchor_scale": 4, "channels": 8, "hidden": 16} | changes
        return faster_rcnn(settings.pop("encoder", None) or make_encoder(), classes, **settings)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """24 scenes of 64 px to learn from and 8 to score."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.write(root / "train", count=24, size=64)
    scenes.write(root / "val", count=8, size=64, start=24)
    return boxes.load(root / "train"), boxes.load(root / "val")


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """A finished run that nothing interrupted, read only, and its scores."""
    run = tmp_path_factory.mktemp("whole")
    return run, detect(make_encoder(), *sets, run, **SETTINGS)


def train(sets, run, **changes):
    return detect(make_encoder(), *sets, run, **SETTINGS | changes)


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def saved(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def model_at(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def result(run):
    newest = run / "checkpoints" / saved(run)[-1]
    return (run / "losses.jsonl").read_bytes(), *((newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer"))


@pytest.fixture
def at_step(monkeypatch):
    """Does something in the middle of a run: when the losses of a step are there, before the optimizer."""
    update = Run.update

    def register(step, action):
        def action_and_update(self, now, *args):
            if now == step:
                action()
            return update(self, now, *args)

        monkeypatch.setattr(Run, "update", action_and_update)

    return register


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError


# what a run leaves


def test_a_run_leaves_its_losses_and_two_checkpoints(whole, sets):
    run, scores = whole
    lines = rows(run)
    assert [line["step"] for line in lines] == list(range(STEPS))
    parts = ("classifier", "box_reg", "objectness", "rpn_box_reg")
    for line in lines:
        assert line.keys() == {"step", "total", "lr", *parts}
        assert line["total"] == pytest.approx(sum(line[part] for part in parts), rel=1e-5)
        assert 0 < line["total"] < 100
    assert lines[0]["classifier"] == pytest.approx(np.log(9), abs=0.3)
    assert saved(run) == ["step-00000004", "step-00000006"]
    assert all(0 <= value <= 100 for value in scores)


def naive_batch(data, step, *, batch, seed):
    """The boxes, and the pixels by Pillow alone, of pictures that are as high as wide."""
    images, targets = [], []
    epoch, ids = shards.step_ids(len(data.pictures), batch_size=batch, step=step, seed=seed)
    for n in ids:
        picture = data.pictures[n]
        with Image.open(picture.path) as file:
            pixels = np.asarray(file.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) / np.float32(255)
        scaled = picture.boxes / 2
        if np.random.default_rng((seed, epoch, int(n))).integers(2):
            pixels = pixels[:, ::-1].copy()
            scaled = np.stack([32 - scaled[:, 2], scaled[:, 1], 32 - scaled[:, 0], scaled[:, 3]], 1)
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        targets.append({"boxes": torch.from_numpy(scaled), "labels": torch.from_numpy(picture.labels + 1)})
    return images, targets


def plain_training(data, *, lr=0.2, warmup=2, weight_decay=1e-4, seed=0, batch_size=4):
    """As a reader of the docstring would write it; no fused update."""
    torch.manual_seed(seed)
    model = faster_rcnn(make_encoder(), 8, 32, 16, 4, 8, 16).train()
    losses = []
    momentum = {}
    for step in range(STEPS):
        torch.manual_seed(int(np.random.default_rng((seed, step)).integers(2**63)))
        terms = model(*naive_batch(data, step, batch=batch_size, seed=seed))
        model.zero_grad()
        sum(terms.values()).backward()
        rate = lr * batch_size / 16 * min(1, (step + 1) / warmup) * (0.01 if step >= 5.5 else 0.1 if step >= 4.5 else 1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                momentum[name] = 0.9 * momentum.get(name, 0) + p.grad + (weight_decay * p if p.ndim > 1 else 0)
                p -= rate * momentum[name]
        losses.append({name.removeprefix("loss_"): value.item() for name, value in terms.items()})
    return model, losses


@pytest.mark.parametrize("settings", [{}, {"lr": 0.1, "warmup": 3, "weight_decay": 0.1, "seed": 7, "batch_size": 5}])
def test_every_step_is_that_of_the_plain_loop(sets, tmp_path, settings):
    train(sets, tmp_path, **settings)
    with torch.random.fork_rng(devices=[]):
        model, losses = plain_training(sets[0], **settings)
    for line, want in zip(rows(tmp_path), losses, strict=True):
        assert {name: line[name] for name in want} == pytest.approx(want, rel=1e-3, abs=1e-4)
    got = model_at(tmp_path, STEPS)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_nothing_is_frozen_and_all_statistics_are_of_this_run(sets, tmp_path):
    train(sets, tmp_path, weight_decay=0.0, lr=1.0, warmup=0, checkpoint_every=3)
    before, after = model_at(tmp_path, 3), model_at(tmp_path, STEPS)
    names = [name for name, _ in make_model(8).named_parameters()]
    assert len(names) == 21 * 3 + 3 * 2 * 3 + 6 + 8  # convolutions and norms of the encoder and the pyramid, heads
    assert [name for name in names if torch.equal(before[name], after[name])] == []
    counts = {name: int(value) for name, value in after.items() if name.endswith("num_batches_tracked")}
    assert len(counts) == 21 + 6
    assert set(counts.values()) == {STEPS}


def test_weights_decay_and_norms_and_biases_do_not(sets, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Run, "__init__", lambda self, path, *args, **settings: kept.extend(args[:2]) or crash())
    with pytest.raises(CrashError):
        train(sets, tmp_path, weight_decay=0.3)
    model, optimizer = kept
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for name, layer in model.named_modules():
        for kind, p in layer.named_parameters(recurse=False):
            wanted = 0.3 if kind == "weight" and isinstance(layer, nn.Conv2d | nn.Linear) else 0
            assert decay[id(p)] == wanted, f"{name}.{kind}"


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_learning_rate_warms_up_and_falls_twice(sets, tmp_path, warmup):
    train(sets, tmp_path, iterations=12, warmup=warmup, batch_size=2, lr=0.08, proposals=4)
    start = [1 / 3, 2 / 3, 1.0] if warmup else [1.0, 1.0, 1.0]
    wanted = start + [1.0] * 6 + [0.1] * 2 + [0.01]
    assert [line["lr"] for line in rows(tmp_path)] == pytest.approx([0.01 * factor for factor in wanted])


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_no_argument_and_no_global_state(whole, sets, tmp_path, untouched_generator, workers):
    encoder = make_encoder().train(workers == 1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.rand(workers + 1)
    with untouched_generator():
        scores = detect(encoder, *sets, tmp_path, **SETTINGS, workers=workers)
    assert scores == whole[1]
    assert result(tmp_path) == result(whole[0])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert encoder.training == (workers == 1)


def test_the_precision_is_by_default_what_the_hardware_computes(whole, sets, tmp_path, monkeypatch):
    scored = []

    def record(model, data, size, *rest):
        scored.append((data.path, size, torch.is_autocast_enabled("cpu")))
        return _detections(model, data, size, *rest)

    monkeypatch.setattr(module, "_detections", record)
    monkeypatch.setattr(module, "fastest_precision", lambda device: "bf16")
    train(sets, tmp_path, precision=None, iterations=2)
    assert scored == [(sets[1].path, 32, True)]  # scored as it was trained
    assert checkpoint.latest(tmp_path).manifest["settings"]["precision"] == "bf16"
    first, reduced = rows(whole[0])[0], rows(tmp_path)[0]
    assert reduced["objectness"] == pytest.approx(first["objectness"], rel=0.05)
    assert reduced["total"] != first["total"]


# interruptions


@pytest.mark.parametrize(("step", "workers"), [(0, 0), (3, 1), (5, 0)])
def test_a_run_that_crashed_ends_with_the_same_bits(whole, sets, tmp_path, at_step, step, workers):
    at_step(step, crash)
    with pytest.raises(CrashError):
        train(sets, tmp_path, workers=workers)
    assert len(rows(tmp_path)) == step
    at_step(None, crash)
    torch.rand(3)
    assert train(sets, tmp_path, workers=1 - workers) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_finished_run_only_scores(whole, sets, tmp_path, at_step):
    run = shutil.copytree(whole[0], tmp_path / "run")
    for step in range(STEPS):
        at_step(step, crash)
    assert train(sets, run) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(whole, sets, tmp_path, at_step):
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"):
        train(sets, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    at_step(None, crash)
    assert train(sets, tmp_path, checkpoint_every=100) == whole[1]
    assert result(tmp_path) == result(whole[0])


CHANGES = {
    "size": 40, "iterations": 8, "batch_size": 6, "lr": 0.1, "warmup": 1, "weight_decay": 0.0, "proposals": 8, "anchor_scale": 2,
    "channels": 4, "hidden": 8, "seed": 1, "precision": "bf16",
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, sets, field):
    before, name = result(whole[0]), {"iterations": "steps"}.get(field, field)
    with pytest.raises(CareError, match=rf"was trained with {name}=.*, this call has {name}={CHANGES[field]}; repeat the first call's"):
        train(sets, whole[0], **{field: CHANGES[field]})
    assert result(whole[0]) == before


def test_another_encoder_and_other_data_are_refused_by_name(whole, sets):
    with pytest.raises(CareError, match="was trained with encoder="):
        detect(make_encoder(1), *sets, whole[0], **SETTINGS)
    with pytest.raises(CareError, match="was trained with data="):
        train((sets[1], sets[1]), whole[0])


# what stops a run, and what does not


def without_boxes(picture):
    return picture._replace(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), ignored=np.zeros(0, np.bool_))


def all_ignored(data):
    return data._replace(pictures=[picture._replace(ignored=np.ones_like(picture.ignored)) for picture in data.pictures])


def test_other_classes_are_refused(sets, tmp_path):
    renamed = sets[1]._replace(classes=(*sets[1].classes[1:], sets[1].classes[0]))
    with pytest.raises(CareError, match=r"name different classes; read the second with the classes of the first"):
        train((sets[0], renamed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_set_without_a_box_that_counts_is_refused(sets, tmp_path, which):
    empty = sets[which]._replace(path=tmp_path / "empty.json", pictures=[without_boxes(picture) for picture in sets[which].pictures])
    for data in (empty, all_ignored(sets[which])._replace(path=empty.path)):
        pair = (data, sets[1]) if which == 0 else (sets[0], data)
        with pytest.raises(CareError, match=r"empty\.json has no box that counts; detection needs some"):
            train(pair, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batches_of_pictures_without_boxes_are_learned_from(sets, tmp_path):
    pictures = sets[0].pictures[:1] + [without_boxes(picture) for picture in sets[0].pictures[1:]]
    train((sets[0]._replace(pictures=pictures), sets[1]), tmp_path, batch_size=2, iterations=3, proposals=8)
    lines = rows(tmp_path)
    assert sum(line["box_reg"] == 0 for line in lines) >= 2
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert all(line["objectness"] > 0 for line in lines)


def test_a_loss_that_is_not_finite_is_named_and_not_saved(sets, tmp_path):
    with pytest.raises(CareError, match=r"the \w+ loss is (nan|inf) at step \d; lower lr or lengthen warmup, then start a new run"):
        train(sets, tmp_path, lr=1e12, warmup=0, checkpoint_every=100)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_image_is_named(whole, sets, tmp_path, which, workers):
    run = shutil.copytree(whole[0], tmp_path / "run") if which == 1 else tmp_path / "run"
    broken = sets[which].pictures[5]
    (tmp_path / "broken.jpg").write_bytes(broken.path.read_bytes()[:200])
    pictures = [picture._replace(path=tmp_path / "broken.jpg") if picture is broken else picture for picture in sets[which].pictures]
    pair = [*sets]
    pair[which] = sets[which]._replace(pictures=pictures)
    with pytest.raises(shards.ShardError, match=r"broken\.jpg: ") as caught:
        train(pair, run, workers=workers)
    assert "\n" not in str(caught.value)


# examples


COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 0: (0, 0, 255)}


def paint(path, size, *objects, ground=(40, 40, 40), ignored=()):
    """A picture of rectangles (label, left, top, right, bottom)."""
    image = Image.new("RGB", size, ground)
    for label, *box in objects:
        image.paste(COLOURS[label], tuple(box))
    image.save(path)
    corners, labels = np.array([o[1:] for o in objects], np.float32).reshape(-1, 4), np.array([o[0] for o in objects], np.int64)
    return Picture(path, size, corners, labels, np.array([n in ignored for n in range(len(objects))], np.bool_))


def box_set(*pictures):
    return BoxSet(pictures[0].path.parent, list(pictures), ("blue", "red", "green"), {}, f"of {len(pictures)}")


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((40, 40), (64, 64)),
        ((80, 50), (102, 64)),
        ((50, 80), (64, 102)),
        ((128, 96), (85, 64)),
        ((31, 31), (64, 64)),
        ((200, 50), (107, 27)),  # as long as 64 · 1333 / 800 at most
        ((30, 90), (36, 107)),
        ((800, 3), (107, 1)),
        ((64, 64), (64, 64)),
    ],
)  # fmt: skip
def test_a_picture_is_resized_to_its_short_side_unless_it_is_too_long(make_image, tmp_path, size, wanted):
    path = tmp_path / "image.png"
    make_image(0, size).save(path)
    corners = np.array([[0, 0, *size], [size[0] / 4, size[1] / 2, size[0] / 2, size[1]]], np.float32)
    picture = Picture(path, size, corners, np.array([0, 2]), np.array([False, False]))
    pixels, target = _Examples(box_set(picture), 64)[0]
    assert tuple(pixels.shape) == (3, wanted[1], wanted[0])
    naive = np.asarray(Image.open(path).convert("RGB").resize(wanted, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert torch.equal(pixels, torch.from_numpy(naive / np.float32(255)))
    x, y = wanted[0] / size[0], wanted[1] / size[1]
    for got, (left, top, right, bottom) in zip(target["boxes"].tolist(), corners.tolist(), strict=True):
        assert got == pytest.approx([left * x, top * y, right * x, bottom * y], rel=1e-5)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 3]
    # torchvision's own transform finds nothing left to do
    batch, resized = make_model(size=64).transform([pixels], [target])
    assert batch.image_sizes == [(wanted[1], wanted[0])]
    assert torch.equal(resized[0]["boxes"], target["boxes"])


def test_the_pixels_in_a_box_are_its_objects_in_both_orientations(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    picture = paint(tmp_path / "image.png", (100, 80), *objects)
    examples = _Examples(box_set(picture), 160)
    for at in (0, (0, False), (0, True)):
        pixels, target = examples[at]
        assert tuple(pixels.shape) == (3, 160, 200)
        assert target["labels"].tolist() == [2, 3, 1]
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            left, top, right, bottom = (round(value) for value in box)
            assert box == [left, top, right, bottom]
            colour = torch.tensor(COLOURS[label - 1])[:, None, None] / 255
            inside = pixels[:, top + 1 : bottom - 1, left + 1 : right - 1]  # Pillow blends across a border
            torch.testing.assert_close(inside, colour.expand_as(inside))
            count = int(((pixels - colour).abs().amax(0) < 0.3).sum())
            assert count == pytest.approx((right - left) * (bottom - top), abs=2 * (right - left + bottom - top))
    (plain, one), (mirrored, two) = examples[0, False], examples[0, True]
    assert torch.equal(plain.flip(2), mirrored)
    assert torch.equal(two["boxes"][:, [0, 2]], 200 - one["boxes"][:, [2, 0]])
    assert torch.equal(two["boxes"][:, [1, 3]], one["boxes"][:, [1, 3]])


def test_ignored_boxes_are_left_out(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    examples = _Examples(box_set(*(paint(tmp_path / "1.png", (100, 80), *objects, ignored=which) for which in ((1,), (0, 1, 2)))), 80)
    assert len(examples) == 2
    for at in ((0, False), (0, True)):
        assert examples[at][1]["labels"].tolist() == [2, 1]
    assert examples[0][1]["boxes"].tolist() == [[10, 20, 30, 60], [80, 40, 100, 80]]
    for at in ((1, False), (1, True)):
        _, target = examples[at]
        assert tuple(target["boxes"].shape) == (0, 4)
        assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)


def test_half_of_the_pictures_are_mirrored_others_each_epoch(tmp_path, monkeypatch):
    data = box_set(*(paint(tmp_path / f"{n}.png", (32, 32), (1, 0, 0, 8, 8)) for n in range(16)))
    asked, get = [], _Examples.__getitem__
    monkeypatch.setattr(_Examples, "__getitem__", lambda self, at: (asked.append(at), get(self, at))[1])
    settings = {"batch_size": 4, "seed": 0, "steps": 40, "size": 32}
    for (images, targets), start in zip(_batches(data, settings, 0, 0), range(0, 160, 4), strict=True):
        assert len(images) == len(targets) == 4
        for (_, mirrored), target in zip(asked[start : start + 4], targets, strict=True):
            assert target["boxes"].tolist() == [[24, 0, 32, 8] if mirrored else [0, 0, 8, 8]]
    epochs = [dict(asked[n : n + 16]) for n in range(0, 160, 16)]
    assert all(epoch.keys() == set(range(16)) for epoch in epochs)
    assert len({tuple(sorted(epoch.items())) for epoch in epochs}) == 10
    assert 60 <= sum(mirrored for epoch in epochs for mirrored in epoch.values()) <= 100
    before, asked[:] = asked[28:36], []
    list(_batches(data, settings | {"steps": 9}, 7, 0))
    assert asked == before


# the model


def test_anchors_and_pyramid_of_a_small_encoder():
    model = make_model(anchor_scale=3)
    assert model.rpn.anchor_generator.sizes == ((12,), (24,), (48,), (96,))
    assert_pyramid(model, {"layer2": 4, "layer3": 8, "layer4": 16, "pool": 32})


def test_anchors_and_pyramid_of_a_standard_encoder():
    model = make_model(encoder=make_encoder(small=False), size=64, anchor_scale=8)
    assert model.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert_pyramid(model, {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32, "pool": 64})


def assert_pyramid(model, strides):
    assert set(model.rpn.anchor_generator.aspect_ratios) == {(0.5, 1.0, 2.0)}
    assert len(model.rpn.anchor_generator.aspect_ratios) == len(strides)
    with torch.no_grad():
        maps = model.eval().backbone(torch.randn(2, 3, 64, 160))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        name: (2, 8, -(-64 // stride), -(-160 // stride)) for name, stride in strides.items()
    }
    assert model.roi_heads.box_roi_pool.featmap_names == [name for name in strides if name != "pool"]
    norms = [layer for layer in model.backbone.fpn.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 2 * (len(strides) - 1)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == 21 + len(norms)


def test_the_model_is_made_of_what_was_asked_for():
    encoder = make_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = make_model(5, encoder=encoder, size=64, proposals=50, hidden=24)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    inside = model.backbone.encoder.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in inside.items())
    assert not any(inside[name].data_ptr() == value.data_ptr() for name, value in encoder.state_dict().items())
    assert model.roi_heads.box_predictor.cls_score.weight.shape == (6, 24)
    assert model.roi_heads.box_predictor.bbox_pred.weight.shape == (24, 24)
    assert model.roi_heads.box_head.fc6.weight.shape == (24, 8 * 49)
    assert (model.transform.min_size, model.transform.max_size) == ((64,), round(64 * LONGEST))
    assert model.transform.image_mean == (0.485, 0.456, 0.406)
    assert model.transform.image_std == (0.229, 0.224, 0.225)
    for training, first in ((True, 100), (False, 50)):
        model.train(training)
        assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == (first, 50)
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 25
    assert (model.roi_heads.box_roi_pool.output_size, model.roi_heads.box_roi_pool.sampling_ratio) == ((7, 7), 2)


# scores


class Told(FasterRCNN):
    """Knows what is in a picture from the red of its first pixel, in pixels of the resized one."""

    def __init__(self):
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        answers = []
        for image in images:
            number, (height, width) = round(float(image[0, 0, 0]) * 255 / 40), image.shape[1:]
            found = torch.tensor([[0.0, 0.0, width, height], [width / 4, height / 2, width / 2, height]])[: number % 3]
            of = torch.arange(len(found))
            answers.append({"boxes": found, "scores": of / 10 + number / 100, "labels": of + 1})
        return answers


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_found_is_in_pixels_of_the_picture_and_in_order(tmp_path, workers):
    sizes = [(100, 80), (60, 200), (33, 47), (500, 20), (40, 40)]
    data = box_set(*(paint(tmp_path / f"{n}.png", size, ground=(40 * n, 0, 0)) for n, size in enumerate(sizes, 1)))
    found = _detections(Told(), data, 48, 2, workers)
    for n, (one, (width, height)) in enumerate(zip(found, sizes, strict=True), 1):
        wanted = [[0, 0, width, height], [width / 4, height / 2, width / 2, height]][: n % 3]
        np.testing.assert_allclose(one.boxes, np.array(wanted).reshape(-1, 4), rtol=1e-5)
        assert one.scores == pytest.approx([n / 100 + k / 10 for k in range(n % 3)])
        assert one.labels.tolist() == [0, 1][: n % 3]
        assert one.labels.dtype == np.int64


def test_it_learns_to_find_squares_by_their_colour(tmp_path):
    rng, pictures = np.random.default_rng(0), []
    for n in range(24):
        side, label = int(rng.integers(14, 19)), n % 3
        left, top = (int(value) for value in rng.integers(0, 33 - side, 2))
        pictures.append(paint(tmp_path / f"{n}.png", (32, 32), (label, left, top, left + side, top + side), ground=(20, 20, 20)))
    data, val = box_set(*pictures[:16]), box_set(*pictures[16:])
    settings = SETTINGS | {"batch_size": 8, "lr": 0.2, "warmup": 5, "channels": 16, "hidden": 32, "checkpoint_every": 100}
    first = detect(make_encoder(), data, val, tmp_path / "first", **settings | {"iterations": 1})
    last = detect(make_encoder(), data, val, tmp_path / "last", **settings | {"iterations": 40})
    assert last.ap50 > first.ap50 + 30
