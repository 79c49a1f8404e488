import itertools
import json
import os
import shutil
import signal
from collections import Counter
from importlib import import_module
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from processes import together
from pycocotools.mask import decode, encode, frPyObjects
from safetensors.torch import load_file
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.resnet import BasicBlock
import shards
from care import CareError
from care.encoders import ResNetEncoder
from care.evaluate import AveragePrecision, detect
from care.evaluate.average_precision import Judged
from care.evaluate.detector import Detector
from care.evaluate.inference import average_statistics, detections, pasted
from care.evaluate.pictures import Examples, View, drawn, raster
from care.evaluate.resampling import DETECTION_DRAWS
from care.evaluate.voc_metric import RECALLS
from care.tapped import TappedEncoder
from care.train import Stopped, checkpoint, mirror, ranks
from care.train.run import Run
from shards import boxes, scenes, storage
from shards.boxes import BoxSet, Picture

module = import_module("care.evaluate.detect")
STEPS = 6
SHAPE = {"proposals": 8, "anchor_scale": 2, "channels": 8, "hidden": 16}
SETTINGS = {
    **SHAPE,
    "mask": True,
    "size": 32,
    "iterations": STEPS,
    "batch_size": 4,
    "lr": 0.2,
    "warmup": 2,
    "precise": 3,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


class Quarter(ResNetEncoder):
    """A ResNet with a quarter of the channels."""

    def _make_layer(self, block, planes, *more, **options):
        return super()._make_layer(block, planes // 2, *more, **options)


def make_encoder(seed=0):
    """One with a block in each stage, in eval mode, as it comes from a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Quarter(BasicBlock, [1, 1, 1, 1], small=True, half=True).eval()
    encoder.features //= 2
    return encoder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """24 scenes of 64 px to learn from and 8 to score."""
    root = tmp_path_factory.mktemp("scenes")
    scenes.write(root / "train", count=24, size=64)
    scenes.write(root / "val", count=8, size=64, start=24)
    return boxes.load(root / "train"), boxes.load(root / "val")


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """A finished run of Mask R-CNN C4 that nothing interrupted, read only, and its scores."""
    run = tmp_path_factory.mktemp("whole")
    return run, detect(make_encoder(), *sets, run, **SETTINGS)


def make_model(**changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Detector(make_encoder(), 8, **SHAPE | {"mask": True} | changes)


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
    return (run / "losses.jsonl").read_bytes(), *(
        (newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")
    )


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError


# what a run leaves


def test_a_run_leaves_its_losses_and_two_checkpoints(whole, sets):
    run, scores = whole
    lines = rows(run)
    assert [line["step"] for line in lines] == list(range(STEPS))
    parts = ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")
    for line in lines:
        assert line.keys() == {"step", "total", "lr", *parts}
        assert line["total"] == pytest.approx(sum(line[part] for part in parts), rel=1e-5)
        assert 0 < line["total"] < 100
    assert lines[0]["classifier"] == pytest.approx(np.log(9), abs=0.3)
    assert saved(run) == ["step-00000004", "step-00000006"]
    assert scores.task == "COCO C4"
    assert scores.protocol.startswith(
        "Mask R-CNN, everything trained for 6 iterations of 4 images at a rate of 0.05, short sides of 26…32 px"
    )
    assert list(scores.measures) == ["ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75"]
    assert all(0 <= value <= 100 for value in scores.measures.values())
    assert len(scores.resampled) == DETECTION_DRAWS


def naive_batch(data, step, *, batch, seed):
    """The boxes and masks, and the pixels by Pillow alone, of pictures of 64 × 64 px, at 32 px and less."""
    images, targets = [], []
    epoch, ids = shards.step_ids(len(data.pictures), batch_size=batch, step=step, seed=seed)
    for n in ids:
        picture, rng = data.pictures[n], np.random.default_rng((seed, epoch, int(n)))
        mirrored, side = rng.integers(2), [26, 27, 28, 29, 31, 32][rng.integers(6)]
        with Image.open(picture.path) as file:
            pixels = np.asarray(
                file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            ) / np.float32(255)
        scaled = picture.boxes * (side / 64)
        whole = [decode(frPyObjects(one, 64, 64)).astype(bool) for one in picture.masks]
        masks = np.array(
            [Image.fromarray(one).resize((side, side), Image.Resampling.NEAREST) for one in whole],
            np.uint8,
        )
        if mirrored:
            pixels, masks = pixels[:, ::-1].copy(), masks[:, :, ::-1].copy()
            scaled = np.stack(
                [side - scaled[:, 2], scaled[:, 1], side - scaled[:, 0], scaled[:, 3]], 1
            )
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        boxes = torch.from_numpy(scaled.astype(np.float32))
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.from_numpy(picture.labels + 1),
                "masks": torch.from_numpy(masks),
            }
        )
    return images, targets


def plain_training(data, *, head="c4", lr=0.2, warmup=2, weight_decay=1e-4, seed=0, batch_size=4):
    """As a reader of the docstring would write it; no fused update."""
    torch.manual_seed(seed)
    model = Detector(make_encoder(), 8, head=head, mask=True, **SHAPE).train()
    norms = {
        f"{name}.{kind}"
        for name, x in model.named_modules()
        if isinstance(x, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    losses = []
    momentum = {}
    for step in range(STEPS):
        torch.manual_seed(int(np.random.default_rng((seed, step, 0)).integers(2**63)))
        terms = model(*naive_batch(data, step, batch=batch_size, seed=seed))
        model.zero_grad()
        sum(terms.values()).backward()
        rate = (
            lr
            * batch_size
            / 16
            * min(1, (step + 1) / warmup)
            * (0.01 if step >= 16 / 3 else 0.1 if step >= 4 else 1)
        )
        with torch.no_grad():
            for name, p in model.named_parameters():
                momentum[name] = (
                    0.9 * momentum.get(name, 0)
                    + p.grad
                    + (0 if name in norms else weight_decay * p)
                )
                p -= rate * momentum[name]
        losses.append({name: value.item() for name, value in terms.items()})
    return model, losses


@pytest.mark.parametrize(
    "settings",
    [{}, {"head": "fpn", "lr": 0.1, "warmup": 3, "weight_decay": 0.1, "seed": 7, "batch_size": 5}],
    ids=["c4", "fpn"],
)
def test_every_step_is_that_of_the_plain_loop(sets, tmp_path, settings):
    train(sets, tmp_path, **settings)
    with torch.random.fork_rng(devices=[]):
        model, losses = plain_training(sets[0], **settings)
    for line, want in zip(rows(tmp_path), losses, strict=True):
        assert {name: line[name] for name in want} == pytest.approx(want, rel=1e-3, abs=1e-4)
    got = model_at(tmp_path, STEPS)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(
            got[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_nothing_is_frozen_and_all_statistics_are_of_this_run(sets, tmp_path, head):
    train(sets, tmp_path, head=head, weight_decay=0.0, lr=1.0, warmup=0, checkpoint_every=3)
    before, after = model_at(tmp_path, 3), model_at(tmp_path, STEPS)
    names = [name for name, _ in make_model(head=head).named_parameters()]
    # convolutions and norms of the encoder; the norm, or the pyramid, the box and the mask head; the first stage; three predictors
    assert len(names) == 13 * 3 + (2 if head == "c4" else 3 * 2 * 3 + 4 + 8) + 6 + 4 + 4
    assert [name for name in names if torch.equal(before[name], after[name])] == []
    counts = {
        name: int(value) for name, value in after.items() if name.endswith("num_batches_tracked")
    }
    assert len(counts) == 13 + (1 if head == "c4" else 6)
    assert set(counts.values()) == {STEPS}


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_all_decays_but_norms(sets, tmp_path, monkeypatch, head):
    kept = []
    monkeypatch.setattr(
        Run, "__init__", lambda self, path, *args, **settings: kept.extend(args[:2]) or crash()
    )
    with pytest.raises(CrashError):
        train(sets, tmp_path, weight_decay=0.3, head=head)
    model, optimizer = kept
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert (
        len(decay)
        == sum(len(group["params"]) for group in optimizer.param_groups)
        == len(list(model.parameters()))
    )
    for name, layer in model.named_modules():
        for kind, p in layer.named_parameters(recurse=False):
            assert decay[id(p)] == (0 if isinstance(layer, nn.BatchNorm2d) else 0.3), (
                f"{name}.{kind}"
            )


@pytest.mark.parametrize(("warmup", "is_voc"), [(0, True), (3, False)])
def test_the_learning_rate_warms_up_and_falls_twice(sets, tmp_path, warmup, is_voc):
    data = [one._replace(voc=is_voc) for one in sets]
    done = train(
        data,
        tmp_path,
        iterations=12,
        warmup=warmup,
        batch_size=2,
        lr=0.08,
        proposals=4,
        mask=False,
        head="fpn",
    )
    assert done.task == ("VOC FPN" if is_voc else "COCO FPN without masks")
    start = [1 / 3, 2 / 3, 1.0] if warmup else [1.0, 1.0, 1.0]
    wanted = start + ([1.0] * 6 + [0.1] * 2 + [0.01] if is_voc else [1.0] * 5 + [0.1] * 3 + [0.01])
    assert [line["lr"] for line in rows(tmp_path)] == pytest.approx(
        [0.01 * factor for factor in wanted]
    )


@pytest.mark.parametrize(("of_train", "of_val"), [(True, True), (False, True), (True, False)])
def test_the_kind_of_data_sets_schedule_sizes_and_metric(
    sets, tmp_path, monkeypatch, of_train, of_val
):
    asked, steps, get = Counter(), [], Examples.__getitem__
    monkeypatch.setattr(
        Examples, "__getitem__", lambda self, view: (asked.update([view.side]), get(self, view))[1]
    )
    monkeypatch.setattr(
        Run, "steps", lambda self, *args: steps.append((self.settings["steps"], *args))
    )
    for name, value in (("judge_voc", 3), ("judge_coco", 4)):
        judged = Judged(AveragePrecision(value, 0, 0), [], RECALLS)
        monkeypatch.setattr(module, name, lambda *_, judged=judged, **masks: judged)
    data = sets[0]._replace(voc=of_train), sets[1]._replace(voc=of_val)
    # what is counted is decoded in this process
    done = train(data, tmp_path, iterations=None, size=80, precise=24, workers=0)
    assert done.task == ("VOC C4" if of_val else "COCO C4")
    assert (done.measures["ap"], done.measures["mask_ap"]) == (3 if of_val else 4, 4)
    ((count, _, _, rate, _),) = steps
    assert count == (24_000 if of_train else 90_000)
    changes = [step for step in range(1, count) if rate(step) < rate(step - 1)]
    assert changes == ([18_000, 22_000] if of_train else [60_000, 80_000])
    assert asked.pop(80) > 8  # those that are scored, and some more
    wanted = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768]
    assert sorted(asked) == [
        round(side / 10) for side in wanted if side >= (480 if of_train else 640)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_no_argument_and_no_global_state(
    whole, sets, tmp_path, untouched_generator, workers
):
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
        return detections(model, data, size, *rest)

    monkeypatch.setattr(module, "detections", record)
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
    at_step([step], crash)
    with pytest.raises(CrashError):
        train(sets, tmp_path, workers=workers)
    assert len(rows(tmp_path)) == step
    at_step([], crash)
    torch.rand(3)
    assert train(sets, tmp_path, workers=1 - workers) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_finished_run_only_scores(whole, sets, tmp_path, at_step):
    run = shutil.copytree(whole[0], tmp_path / "run")
    for step in range(STEPS):
        at_step([step], crash)
    assert train(sets, run) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(whole, sets, tmp_path, at_step):
    at_step([2], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        train(sets, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    at_step([], crash)
    assert train(sets, tmp_path, checkpoint_every=100) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_run_at_a_url_that_was_stopped_continues_on_another_machine(
    whole, sets, machine, url, at_step
):
    at_step([2], lambda: os.kill(os.getpid(), signal.SIGTERM))
    machine("first")
    with pytest.raises(Stopped, match="stopped on request after step 3 of 6 and saved"):
        train(sets, url, checkpoint_every=100)
    at_step([0, 1, 2], crash)
    machine("second")
    assert train(sets, url, checkpoint_every=100) == whole[1]
    assert result(mirror.local_copy(url)) == result(whole[0])
    assert storage.read_bytes(f"{url}/losses.jsonl") == (whole[0] / "losses.jsonl").read_bytes()


CHANGES = {
    "head": "fpn",
    "mask": False,
    "size": 40,
    "iterations": 8,
    "batch_size": 6,
    "lr": 0.1,
    "warmup": 1,
    "weight_decay": 0.0,
    "proposals": 9,
    "anchor_scale": 3,
    "channels": 4,
    "hidden": 8,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, sets, field):
    before, name = result(whole[0]), {"iterations": "steps"}.get(field, field)
    with pytest.raises(
        CareError,
        match=rf"was trained with {name}=.*, this call has {name}={CHANGES[field]}; repeat the first call's",
    ):
        train(sets, whole[0], **{field: CHANGES[field]})
    assert result(whole[0]) == before


def test_another_encoder_and_other_data_are_refused_by_name(whole, sets):
    with pytest.raises(CareError, match="was trained with encoder="):
        detect(make_encoder(1), *sets, whole[0], **SETTINGS)
    with pytest.raises(CareError, match="was trained with data="):
        train((sets[1], sets[1]), whole[0])


# what stops a run, and what does not


def without_boxes(picture):
    none = np.zeros(0, np.bool_)
    return picture._replace(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=none,
        crowd=none,
        masks=[],
    )


def all_crowds(data):
    return data._replace(
        pictures=[picture._replace(crowd=np.ones_like(picture.crowd)) for picture in data.pictures]
    )


def without_masks(data, *numbers):
    pictures = [
        p._replace(masks=[[]] * len(p.masks)) if n in numbers else p
        for n, p in enumerate(data.pictures)
    ]
    return data._replace(pictures=pictures)


def test_other_classes_are_refused(sets, tmp_path):
    renamed = sets[1]._replace(classes=(*sets[1].classes[1:], sets[1].classes[0]))
    with pytest.raises(
        CareError, match=r"name different classes; read the second with the classes of the first"
    ):
        train((sets[0], renamed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_set_without_a_box_that_counts_is_refused(sets, tmp_path, which):
    empty = sets[which]._replace(
        path=tmp_path / "empty.json",
        pictures=[without_boxes(picture) for picture in sets[which].pictures],
    )
    for data in (empty, all_crowds(sets[which])._replace(path=empty.path)):
        pair = (data, sets[1]) if which == 0 else (sets[0], data)
        with pytest.raises(
            CareError, match=r"empty\.json has no box that counts; detection needs some"
        ):
            train(pair, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_masks_that_are_missing_are_refused_and_boxes_without_one_are_left_out(sets, tmp_path):
    everywhere = [without_masks(data, *range(24)) for data in sets]
    for pair in (
        (everywhere[0], sets[1]),
        (sets[0], everywhere[1]),
        (sets[0], without_masks(sets[1], 2)),
    ):
        lacking = pair[0] if pair[0] is not sets[0] else pair[1]
        with pytest.raises(
            CareError,
            match=rf"{lacking.path} has boxes without a mask, polygons or an RLE; add them, or detect without",
        ):
            train(pair, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(everywhere, tmp_path / "boxes", mask=False, iterations=1)
    some = without_masks(sets[0], 2)
    for mask in (False, True):
        examples = Examples(some, 100, mask)
        assert [len(examples[View(n, 32)][1]["labels"]) > 0 for n in (1, 2)] == [True, not mask]


def test_the_c4_form_is_refused_of_what_is_no_resnet(sets, tmp_path):
    layers = [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    with pytest.raises(
        CareError, match=r"this encoder has no stages to cut into the C4 form; use head='fpn'"
    ):
        detect(TappedEncoder(nn.Sequential(*layers), "1"), *sets, tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())
    assert (
        detect(
            TappedEncoder(nn.Sequential(*layers), "1"),
            *sets,
            tmp_path,
            **SETTINGS | {"head": "fpn"},
        ).task
        == "COCO FPN"
    )


def test_batches_of_pictures_without_boxes_are_learned_from(sets, tmp_path):
    pictures = sets[0].pictures[:1] + [without_boxes(picture) for picture in sets[0].pictures[1:]]
    train(
        (sets[0]._replace(pictures=pictures), sets[1]),
        tmp_path,
        batch_size=2,
        iterations=3,
        proposals=8,
    )
    lines = rows(tmp_path)
    assert sum(line["box_reg"] == 0 for line in lines) >= 2
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert all(line["objectness"] > 0 for line in lines)


def test_a_loss_that_is_not_finite_is_named_and_not_saved(sets, tmp_path):
    with pytest.raises(
        CareError,
        match=r"the \w+ loss is (nan|inf) at step \d; lower lr or lengthen warmup, then start a new run",
    ):
        train(sets, tmp_path, lr=1e12, warmup=0, checkpoint_every=100)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_image_is_named(whole, sets, tmp_path, which, workers):
    run = shutil.copytree(whole[0], tmp_path / "run") if which == 1 else tmp_path / "run"
    broken = sets[which].pictures[5]
    (tmp_path / "broken.jpg").write_bytes(broken.path.read_bytes()[:200])
    pictures = [
        picture._replace(path=tmp_path / "broken.jpg") if picture is broken else picture
        for picture in sets[which].pictures
    ]
    pair = [*sets]
    pair[which] = sets[which]._replace(pictures=pictures)
    with pytest.raises(shards.ShardError, match=r"broken\.jpg: ") as caught:
        train(pair, run, workers=workers)
    assert "\n" not in str(caught.value)


# examples


COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 0: (0, 0, 255)}


def paint(path, size, *objects, ground=(40, 40, 40), crowd=(), difficult=()):
    """A picture of rectangles (label, left, top, right, bottom), with masks: the first a polygon, the others RLEs."""
    image = Image.new("RGB", size, ground)
    masks = []
    for label, left, top, right, bottom in objects:
        image.paste(COLOURS[label], (left, top, right, bottom))
        mask = np.zeros(size[::-1], np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        masks.append(
            encode(mask) if masks else [[left, top, right, top, right, bottom, left, bottom]]
        )
    image.save(path)
    corners, labels = (
        np.array([o[1:] for o in objects], np.float32).reshape(-1, 4),
        np.array([o[0] for o in objects], np.int64),
    )
    flags = (
        np.array([n in which for n in range(len(objects))], np.bool_)
        for which in (difficult, crowd)
    )
    return Picture(path, size, corners, labels, *flags, masks)


def box_set(*pictures):
    return BoxSet(
        pictures[0].path.parent, list(pictures), ("blue", "red", "green"), {}, f"of {len(pictures)}"
    )


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
)
def test_a_picture_is_resized_to_its_short_side_unless_it_is_too_long(
    make_image, tmp_path, size, wanted
):
    path = tmp_path / "image.png"
    make_image(0, size).save(path)
    corners = np.array(
        [[0, 0, *size], [size[0] / 4, size[1] / 2, size[0] / 2, size[1]]], np.float32
    )
    none = np.zeros(2, np.bool_)
    picture = Picture(path, size, corners, np.array([0, 2]), none, none, [[], []])
    pixels, target = Examples(box_set(picture), 64)[View(0, 64)]
    assert tuple(pixels.shape) == (3, wanted[1], wanted[0])
    naive = np.asarray(
        Image.open(path).convert("RGB").resize(wanted, Image.Resampling.BILINEAR)
    ).transpose(2, 0, 1)
    assert torch.equal(pixels, torch.from_numpy(naive / np.float32(255)))
    x, y = wanted[0] / size[0], wanted[1] / size[1]
    for got, (left, top, right, bottom) in zip(
        target["boxes"].tolist(), corners.tolist(), strict=True
    ):
        assert got == pytest.approx([left * x, top * y, right * x, bottom * y], rel=1e-5)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 3]
    assert "masks" not in target


def test_the_pixels_in_a_box_and_in_its_mask_are_its_objects_in_both_orientations(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    examples = Examples(box_set(paint(tmp_path / "image.png", (100, 80), *objects)), 800, mask=True)
    for mirrored in (False, True):
        pixels, target = examples[View(0, 160, mirrored)]
        assert tuple(pixels.shape) == (3, 160, 200)
        assert target["labels"].tolist() == [2, 3, 1]
        assert (target["masks"].dtype, target["masks"].shape) == (torch.uint8, (3, 160, 200))
        for box, label, mask in zip(
            target["boxes"].tolist(), target["labels"].tolist(), target["masks"], strict=True
        ):
            left, top, right, bottom = (round(value) for value in box)
            assert box == [left, top, right, bottom]
            colour = torch.tensor(COLOURS[label - 1])[:, None, None] / 255
            inside = pixels[
                :, top + 1 : bottom - 1, left + 1 : right - 1
            ]  # Pillow blends across a border
            torch.testing.assert_close(inside, colour.expand_as(inside))
            count = int(((pixels - colour).abs().amax(0) < 0.3).sum())
            assert count == pytest.approx(
                (right - left) * (bottom - top), abs=2 * (right - left + bottom - top)
            )
            drawn_box = torch.zeros_like(mask)
            drawn_box[top:bottom, left:right] = 1
            assert torch.equal(mask, drawn_box)
    (plain, one), (mirrored, two) = examples[View(0, 160)], examples[View(0, 160, True)]
    assert torch.equal(plain.flip(2), mirrored)
    assert torch.equal(one["masks"].flip(2), two["masks"])
    assert torch.equal(two["boxes"][:, [0, 2]], 200 - one["boxes"][:, [2, 0]])
    assert torch.equal(two["boxes"][:, [1, 3]], one["boxes"][:, [1, 3]])


def test_masks_of_any_shape_are_drawn_where_the_object_is_after_resizing():
    """Against Pillow's polygons and, for RLEs, its resizing."""
    triangle, square = [12.0, 8, 88, 20, 40, 70], [60.0, 60, 78, 60, 78, 78, 60, 78]
    factors = np.array([1.5, 0.75])
    found = raster([triangle, [*square, 3.0]], factors, (60, 150))  # half a corner too many
    image = Image.new("L", (150, 60))
    for polygon in (triangle, square):
        corners = np.reshape(polygon, (-1, 2)) * factors - 0.5
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    assert (found != np.asarray(image)).mean() < 0.02
    assert found.sum() == pytest.approx(np.asarray(image).sum(), rel=0.1)
    ring = np.zeros((80, 100), np.uint8)
    ring[10:70, 20:90], ring[30:50, 40:60] = 1, 0
    packed = encode(np.asfortranarray(ring))
    counts = [len(list(run)) for _, run in itertools.groupby(ring.ravel(order="F"))]
    wanted = np.asarray(Image.fromarray(ring).resize((150, 60), Image.Resampling.NEAREST))
    for mask in (
        packed,
        packed | {"counts": packed["counts"].decode()},
        {"size": [80, 100], "counts": counts},
    ):
        assert np.array_equal(raster(mask, factors, (60, 150)), wanted)


def test_difficult_objects_are_learned_from_and_crowds_are_not(tmp_path):
    objects = ((1, 10, 20, 30, 60), (2, 50, 0, 90, 10), (0, 80, 40, 100, 80))
    one = paint(tmp_path / "1.png", (100, 80), *objects, crowd=(1,), difficult=(0,))
    examples = Examples(
        box_set(one, paint(tmp_path / "2.png", (100, 80), *objects, crowd=(0, 1, 2))),
        800,
        mask=True,
    )
    for mirrored in (False, True):
        assert examples[View(0, 80, mirrored)][1]["labels"].tolist() == [2, 1]
        target = examples[View(1, 80, mirrored)][1]
        assert (tuple(target["boxes"].shape), tuple(target["masks"].shape)) == (
            (0, 4),
            (0, 80, 100),
        )
        assert [target[name].dtype for name in ("boxes", "labels", "masks")] == [
            torch.float32,
            torch.int64,
            torch.uint8,
        ]
    assert examples[View(0, 80)][1]["boxes"].tolist() == [[10, 20, 30, 60], [80, 40, 100, 80]]


def test_how_a_picture_is_shown_is_a_pure_function_of_seed_epoch_and_number():
    sides = [48, 64, 80]
    views = {
        (seed, epoch, n): drawn(seed, epoch, n, sides)
        for seed in (0, 1)
        for epoch in range(10)
        for n in range(20)
    }
    torch.rand(3)
    np.random.rand(3)
    assert all(
        drawn(*at, sides) == view and view.number == at[2] for at, view in reversed(views.items())
    )
    counts = Counter((view.side, view.mirrored) for view in views.values())
    assert counts.keys() == {(side, mirrored) for side in sides for mirrored in (False, True)}
    assert all(45 <= count <= 90 for count in counts.values())
    assert (
        len(
            {
                tuple(views[seed, epoch, n][1:] for n in range(20))
                for seed in (0, 1)
                for epoch in range(10)
            }
        )
        == 20
    )


# statistics before the test


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
    run, asked, models = shutil.copytree(whole[0], tmp_path / "run"), [], []
    get = Examples.__getitem__
    monkeypatch.setattr(
        Examples, "__getitem__", lambda self, view: (asked.append(view), get(self, view))[1]
    )
    monkeypatch.setattr(
        module,
        "detections",
        lambda model, *args: (models.append(model), detections(model, *args))[1],
    )
    train(sets, run, precise=precise)
    sides, order = (
        [26, 27, 28, 29, 31, 32],
        [shards.step_ids(24, batch_size=4, step=step, seed=0) for step in range(wanted)],
    )
    assert asked == [drawn(0, epoch, int(n), sides) for epoch, ids in order for n in ids] + [
        View(n, 32) for n in range(8)
    ]
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


# scores


class Told(nn.Module):
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


def told(tmp_path):
    sizes = [(100, 80), (60, 200), (33, 47), (500, 20), (40, 40)]
    return sizes, box_set(
        *(
            paint(tmp_path / f"{n}.png", size, ground=(40 * n, 0, 0))
            for n, size in enumerate(sizes, 1)
        )
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_found_is_in_pixels_of_the_picture_and_in_order(tmp_path, workers):
    sizes, data = told(tmp_path)
    found = detections(Told(), data, 48, workers)
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
    _, data = told(tmp_path)

    def work():
        model, asked = Told(), []
        model.register_forward_hook(lambda *_: asked.append(1))
        return detections(model, data, 48), len(asked)

    (one, first), (two, second) = together(2, work)
    assert (first, second) == (3, 2)
    for found in (one, two):
        for got, wanted in zip(found, detections(Told(), data, 48), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_masks_are_interpolated_at_the_centres_of_pixels():
    """Against torchvision, which rounds the boxes to whole pixels, at boxes of whole pixels; then at others by sampling."""
    generator = torch.Generator().manual_seed(0)
    for box in ([3, 5, 45, 40], [0, 0, 60, 50], [30, 10, 37, 44]):
        mask = nn.functional.interpolate(
            torch.rand(1, 1, 4, 4, generator=generator), (14, 14), mode="bilinear"
        )[0, 0]
        found = decode(pasted(mask, np.array(box, np.float32), (60, 50)))
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
        pasted(torch.ones(14, 14), np.array([10.2, 10.2, 10.4, 30.0], np.float32), (60, 50))
    )
    assert thin.shape == (50, 60)


# several processes


@pytest.mark.parametrize(("head", "mask"), [("c4", False), ("fpn", False), ("c4", True)])
def test_two_processes_train_as_one_where_nothing_is_sampled(
    sets, tmp_path, monkeypatch, head, mask
):
    monkeypatch.setattr(
        torch,
        "randperm",
        lambda count, **options: torch.arange(count, device=options.get("device")),
    )
    settings = {
        "head": head,
        "mask": mask,
        "size": 64 if head == "c4" else 32,
        "batch_size": 4,
        "iterations": 4,
        "lr": 0.05,
        "checkpoint_every": 4,
    }
    alone = train(sets, tmp_path / "alone", **settings)

    def work():
        torch.set_num_threads(1)
        done = train(sets, tmp_path / "both", **settings)
        return done, ranks.world()

    (one, world), (two, _) = together(2, work)
    assert world == 2
    assert one == two
    assert one.task == alone.task
    for got, wanted in zip(rows(tmp_path / "both"), rows(tmp_path / "alone"), strict=True):
        # the log is the first process's, whose half of the batch has losses of its own
        assert (got["step"], got["lr"]) == (wanted["step"], wanted["lr"])
    if mask:  # whose loss is a mean over each process's own
        return
    got, wanted = model_at(tmp_path / "both", 4), model_at(tmp_path / "alone", 4)
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_batch_that_processes_cannot_share_is_refused(sets, tmp_path):
    def work():
        with pytest.raises(
            CareError,
            match="cannot cut 5 images a step into 2 equal parts; use a multiple of the processes",
        ):
            train(sets, tmp_path / "run", batch_size=5)
        return (tmp_path / "run").exists()

    assert together(2, work) == [False, False]


# learning


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_it_learns_to_find_squares_by_their_colour(tmp_path, head):
    rng, pictures = np.random.default_rng(0), []
    for n in range(24):
        side, label = int(rng.integers(14, 19)), n % 3
        left, top = (int(value) for value in rng.integers(0, 33 - side, 2))
        pictures.append(
            paint(
                tmp_path / f"{n}.png",
                (32, 32),
                (label, left, top, left + side, top + side),
                ground=(20, 20, 20),
            )
        )
    data, val = box_set(*pictures[:16]), box_set(*pictures[16:])
    settings = SETTINGS | {
        "head": head,
        "batch_size": 8,
        "lr": {"c4": 0.4, "fpn": 0.05}[head],
        "warmup": 5,
        "channels": {"c4": 16, "fpn": 32}[head],
        "hidden": 64,
        "anchor_scale": 4,
        "proposals": 16,
        "checkpoint_every": 100,
    }
    first = detect(
        make_encoder(), data, val, tmp_path / "first", **settings | {"iterations": 1, "lr": 0.0}
    ).measures
    last = detect(
        make_encoder(), data, val, tmp_path / "last", **settings | {"iterations": 80}
    ).measures
    assert last["ap50"] > first["ap50"] + 30
    assert last["mask_ap50"] > first["mask_ap50"] + 30
