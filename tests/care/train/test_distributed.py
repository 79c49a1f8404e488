"""Several processes over gloo: equal to one."""

import json
import os
import signal
from importlib import import_module
from itertools import permutations
from pathlib import Path
import pytest
import torch
from flat import gathered
from processes import together
import shards
from care import (
    BYOL,
    CMC,
    PIRL,
    BarlowTwins,
    CareError,
    InfoMin,
    MoCoV2,
    SimCLR,
    SwAV,
    care_loss,
    streams_for,
)
from care.train import VIEWS, Stopped, View, batches, load_encoder, pretrain, ranks
from care.train.optimizers import set_rates
from care.train.views import multi_crop

module = import_module("care.train.pretrain")

SETTINGS = {
    "size": 16,
    "batch_size": 12,
    "steps": 5,
    "warmup": 2,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


def train(path, run, objective=None, *, double=True, encoder="resnet18-small-half", **changes):
    """A tiny run in float64, from new streams."""
    c, t = streams_for(encoder, size=16, seed=0, blocks=1, objective=objective or BYOL(hidden=32))
    if double:
        c.double()
        t.double()
    return pretrain(shards.open(path), run, c, t, **gathered(SETTINGS | changes))


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def assert_equal_runs(first, second):
    for one, two in zip(rows(first), rows(second), strict=True):
        assert one == pytest.approx(two, rel=1e-9)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.resume)])
def test_the_losses_are_those_of_one_process(image_set, tmp_path, world):
    train(image_set, tmp_path / "one", steps=3)
    done = together(world, lambda: train(image_set, tmp_path / "many", steps=3).losses)
    assert_equal_runs(tmp_path / "one", tmp_path / "many")
    assert done == [done[0]] * world
    assert json.loads((tmp_path / "many" / "status.json").read_text()) == {
        "state": "done",
        "message": "",
    }


@pytest.mark.resume
@pytest.mark.parametrize(
    "objective",
    [
        SimCLR(hidden=32, dim=16),
        BarlowTwins(hidden=32, dim=16),
        MoCoV2(hidden=32, dim=16, queue=48),
        SwAV(hidden=32, dim=16, prototypes=12, frozen_steps=1, queue=24),
    ],
)
def test_losses_across_the_batch_see_all_of_it(image_set, tmp_path, objective):
    train(image_set, tmp_path / "one", objective)
    together(2, lambda: train(image_set, tmp_path / "two", objective))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.resume
def test_parts_of_a_batch_are_the_same_for_any_number_of_processes(image_set, tmp_path):
    def work(run):
        objective = SwAV(hidden=32, dim=16, prototypes=6, frozen_steps=1, queue=24)
        return train(image_set, tmp_path / run, objective, accumulate=2)

    work("one")
    together(2, lambda: work("two"))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


PATCHES = View(size=24, patch=8, scale=(0.6, 1.0))


@pytest.mark.resume
@pytest.mark.parametrize(
    ("encoder", "objective", "views"),
    [
        (
            "resnet18-small-half",
            SwAV(hidden=32, dim=16, prototypes=12, frozen_steps=1, queue=24),
            multi_crop(View(), small_size=8, count=2),
        ),
        (
            "resnet18-small-half",
            PIRL(hidden=32, dim=16, images=24, negatives=9),
            (*VIEWS, PATCHES),
        ),
        ("resnet18-small-half", InfoMin(hidden=32, dim=16, queue=24), (*VIEWS, PATCHES)),
        ("lab:resnet18-small-half", CMC(hidden=32, dim=16, images=24, negatives=9), VIEWS),
    ],
    ids=["SwAV", "PIRL", "InfoMin", "CMC"],
)
def test_other_views_and_banks_are_those_of_one_process(
    image_set, tmp_path, encoder, objective, views
):
    changes = {"encoder": encoder, "views": views, "steps": 3}
    train(image_set, tmp_path / "one", objective, **changes)
    together(2, lambda: train(image_set, tmp_path / "two", objective, **changes))
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


class CrashError(Exception):
    pass


def broken_off(monkeypatch, world, work, step):
    """``work`` on ``world`` processes, which all crash at the start of a step."""

    def rates_or_crash(torch_optimizer, optimizer, now, **settings):
        if now == step:
            raise CrashError
        set_rates(torch_optimizer, optimizer, now, **settings)

    def crashing():
        with pytest.raises(CrashError):
            work()

    with monkeypatch.context() as patch:
        patch.setattr(module, "set_rates", rates_or_crash)
        together(world, crashing)


@pytest.mark.resume
def test_a_run_goes_on_with_another_number_of_processes(image_set, tmp_path, monkeypatch):
    train(image_set, tmp_path / "one")
    run = tmp_path / "changing"
    broken_off(monkeypatch, 2, lambda: train(image_set, run), 2)
    broken_off(monkeypatch, 1, lambda: train(image_set, run), 4)
    together(3, lambda: train(image_set, run).losses)
    assert_equal_runs(tmp_path / "one", run)


@pytest.fixture(scope="module")
def on_one_process(image_set, tmp_path_factory):
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("one") / "run"
    train(image_set, run)
    return run


@pytest.mark.resume
@pytest.mark.parametrize(("first", "second"), list(permutations((1, 2, 3, 4), 2)))
def test_a_run_of_any_number_of_processes_goes_on_with_any_other(
    image_set, on_one_process, tmp_path, monkeypatch, first, second
):
    def work():
        return train(image_set, tmp_path).losses

    # its checkpoint is of step 2: step 3 is taken again, of the same batch
    broken_off(monkeypatch, first, work, 3)
    together(second, work)
    assert_equal_runs(on_one_process, tmp_path)


@pytest.mark.resume
@pytest.mark.parametrize("world", [2, 4])
def test_on_as_many_processes_a_run_goes_on_with_the_same_bits(
    image_set, tmp_path, monkeypatch, world
):
    whole, broken = (
        (lambda run=tmp_path / name: train(image_set, run, double=False).losses)
        for name in ("whole", "broken")
    )
    together(world, whole)
    broken_off(monkeypatch, world, broken, 3)
    together(world, broken)
    for name in ("losses.jsonl", "encoder.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_each_process_gets_its_slice_of_every_batch(image_set):
    options = {"size": 16, "batch_size": 12, "steps": 3}
    whole = [views for _, views in batches(shards.open(image_set), **options)]
    parts = together(
        3,
        lambda: [
            tuple(x.numpy() for x in views)
            for _, views in batches(shards.open(image_set), **options)
        ],
    )
    for step, views in enumerate(whole):
        for n, x in enumerate(views):
            assert torch.equal(torch.cat([torch.from_numpy(part[step][n]) for part in parts]), x)


@pytest.mark.resume
def test_a_stop_asked_of_one_process_stops_all_at_the_same_step(image_set, tmp_path, monkeypatch):
    def ask(torch_optimizer, optimizer, step, **settings):
        if step == 2 and ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        set_rates(torch_optimizer, optimizer, step, **settings)

    monkeypatch.setattr(module, "set_rates", ask)

    def work():
        with pytest.raises(Stopped, match="stopped on request after step 3 of 5 and saved"):
            train(image_set, tmp_path, steps=5)

    together(2, work)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"


@pytest.mark.resume
def test_weights_that_came_to_differ_are_found_at_the_next_save(image_set, tmp_path, monkeypatch):
    update = module.update_targets

    def diverge(pairs, momentum):
        update(pairs, momentum)
        if ranks.rank() == 1:
            with torch.no_grad():
                next(pairs[0].online.parameters())[0] += 1e-3

    def work():
        monkeypatch.setattr(module, "update_targets", diverge)
        with pytest.raises(
            CareError, match=r"the processes' weights differ after step 1; check the machines"
        ):
            train(image_set, tmp_path)

    together(2, work)
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.resume
def test_processes_that_see_different_checkpoints_are_told_so(image_set, tmp_path):
    train(image_set, tmp_path / "0", steps=2)

    def work():
        with pytest.raises(
            CareError,
            match=r"the processes see different checkpoints in .*; give a RUN that all machines",
        ):
            train(image_set, tmp_path / str(ranks.rank()), steps=2)

    together(2, work)


def test_parts_of_a_batch_are_averaged(image_set, tmp_path, data):
    train(image_set, tmp_path, accumulate=2, steps=1)
    c, t = streams_for("resnet18-small-half", size=16, seed=0, blocks=1, objective=BYOL(hidden=32))
    c.double()
    t.double()
    _, views = next(iter(batches(data, size=16, batch_size=12, steps=1)))
    halves = zip(*(x.double().chunk(2) for x in views), strict=True)
    losses = []
    for half in halves:
        out = c(*half)
        losses.append(care_loss(out, t(out.maps)))
    (row,) = rows(tmp_path)
    for name in ("cnn", "transformer", "attention", "total"):
        assert row[name] == pytest.approx(
            sum(float(getattr(loss, name).detach()) for loss in losses) / 2, rel=1e-9
        )
    # and so is the gradient: one step of SGD on the mean of the two losses
    (sum(loss.total for loss in losses) / 2).backward()
    before, lr = c.backbone.online.conv1.weight.detach(), 1e-6
    after = load_encoder(tmp_path).conv1.weight.double()
    wanted = before - lr * (c.backbone.online.conv1.weight.grad + 1e-4 * before)
    torch.testing.assert_close(after, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 5), (5, 1), (2, 4), (1, 12)])
def test_batches_that_cannot_be_cut_are_refused(image_set, tmp_path, world, accumulate):
    def work():
        with pytest.raises(
            CareError,
            match=rf"cannot cut 12 images a step into {world} processes × {accumulate} equal parts",
        ):
            train(image_set, tmp_path / "run", accumulate=accumulate)
        return True

    assert (together(world, work) if world > 1 else [work()]) == [True] * world
    assert not Path(tmp_path / "run").exists()
