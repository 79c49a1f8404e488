"""Detectors that are trained and scored: every step, the schedule, the processes."""

from collections import Counter
from importlib import import_module
import numpy as np
import pytest
import torch
from detecting import (
    SETTINGS,
    SHAPE,
    STEPS,
    CrashError,
    box_set,
    crash,
    judge,
    make_encoder,
    make_model,
    model_at,
    naive_batch,
    paint,
    result,
    rows,
    saved,
    train,
)
from processes import together
from torch import nn
from care.evaluate import AveragePrecision
from care.evaluate.average_precision import Judged
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.inference import find_objects
from care.evaluate.pictures import Examples
from care.evaluate.resampling import DETECTION_DRAWS
from care.evaluate.voc_metric import RECALLS
from care.train import checkpoint, precision, ranks
from care.train.run import Run

module = import_module("care.evaluate.detect")


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
        "Mask R-CNN, everything trained for 6 iterations of 4 images at a rate of 0.05, "
        "short sides of 26…32 px"
    )
    assert list(scores.measures) == ["ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75"]
    assert all(0 <= value <= 100 for value in scores.measures.values())
    assert len(scores.resampled) == DETECTION_DRAWS


def plain_training(data, *, head="c4", lr=0.2, warmup=2, weight_decay=1e-4, seed=0, batch_size=4):
    """As a reader of the docstring would write it; no fused update."""
    torch.manual_seed(seed)
    model = Detector(make_encoder(), 8, DetectorShape(head=head, mask=True, **SHAPE)).train()
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
        fallen = 1.0
        if step >= 4:
            fallen = 0.01 if step >= 16 / 3 else 0.1
        rate = lr * batch_size / 16 * min(1, (step + 1) / warmup) * fallen
        with torch.no_grad():
            for name, p in model.named_parameters():
                decay = 0 if name in norms else weight_decay * p
                momentum[name] = 0.9 * momentum.get(name, 0) + p.grad + decay
                p.sub_(rate * momentum[name])
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
    # convolutions and norms of the encoder; the norm, or the pyramid, the box and the mask head;
    # the first stage; three predictors
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
    sides, schedules = Counter(), []
    example = Examples.__getitem__
    monkeypatch.setattr(
        Examples,
        "__getitem__",
        lambda self, shown: (sides.update([shown.side]), example(self, shown))[1],
    )

    def no_steps(self, batches):
        schedules.append(self.settings["steps"])
        return iter(())

    monkeypatch.setattr(Run, "through", no_steps)
    for name, value in (("judge_voc", 3), ("judge_coco", 4)):
        judged = Judged(AveragePrecision(value, 0, 0), [], RECALLS)
        monkeypatch.setattr(module, name, lambda *_, judged=judged, **masks: judged)
    data = sets[0]._replace(voc=of_train), sets[1]._replace(voc=of_val)
    # what is counted is decoded in this process
    done = train(data, tmp_path, iterations=None, size=80, precise=24, workers=0)
    assert done.task == ("VOC C4" if of_val else "COCO C4")
    assert (done.measures["ap"], done.measures["mask_ap"]) == (3 if of_val else 4, 4)
    assert schedules == [24_000 if of_train else 90_000]
    assert sides.pop(80) > 8  # those that are scored, and some more
    wanted = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768]
    assert sorted(sides) == [
        round(side / 10) for side in wanted if side >= (480 if of_train else 640)
    ]


@pytest.mark.parametrize(
    ("protocol", "falls"),
    [(module.VOC, [18_000, 22_000]), (module.COCO, [60_000, 80_000])],
    ids=["voc", "coco"],
)
def test_the_rate_falls_where_the_published_schedules_have_it(protocol, falls):
    steps = protocol.iterations
    factors = [module.rate_factor(step, protocol, steps=steps, warmup=100) for step in range(steps)]
    assert [step for step in range(1, steps) if factors[step] < factors[step - 1]] == falls
    assert factors[99] == 1
    assert factors[falls[0]] == 0.1
    assert factors[falls[1]] == pytest.approx(0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_no_argument_and_no_global_state(
    whole, sets, tmp_path, untouched_generator, workers
):
    encoder = make_encoder().train(workers == 1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.rand(workers + 1)
    with untouched_generator():
        scores = judge(encoder, *sets, tmp_path, **SETTINGS, workers=workers)
    assert scores == whole[1]
    assert result(tmp_path) == result(whole[0])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert encoder.training == (workers == 1)


def test_the_precision_is_by_default_what_the_hardware_computes(whole, sets, tmp_path, monkeypatch):
    scored = []

    def record(model, data, size, *rest):
        scored.append((data.path, size, torch.is_autocast_enabled("cpu")))
        return find_objects(model, data, size, *rest)

    monkeypatch.setattr(module, "find_objects", record)
    monkeypatch.setattr(precision, "fastest_precision", lambda device: "bf16")
    train(sets, tmp_path, precision=None, iterations=2)
    assert scored == [(sets[1].path, 32, True)]  # scored as it was trained
    assert checkpoint.latest(tmp_path).manifest["settings"]["precision"] == "bf16"
    first, reduced = rows(whole[0])[0], rows(tmp_path)[0]
    assert reduced["objectness"] == pytest.approx(first["objectness"], rel=0.05)
    assert reduced["total"] != first["total"]


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
        "iterations": 2,
        "lr": 0.05,
        "checkpoint_every": 2,
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
    got, wanted = model_at(tmp_path / "both", 2), model_at(tmp_path / "alone", 2)
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
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
    first = judge(
        make_encoder(), data, val, tmp_path / "first", **settings | {"iterations": 1, "lr": 0.0}
    ).measures
    last = judge(
        make_encoder(), data, val, tmp_path / "last", **settings | {"iterations": 80}
    ).measures
    assert last["ap50"] > first["ap50"] + 30
    assert last["mask_ap50"] > first["mask_ap50"] + 30
