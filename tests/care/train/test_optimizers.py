"""Each optimizer beside the one that it is to be, on the parameters of both streams."""

import copy
import math
import os
import signal
import sys
from dataclasses import dataclass
import pytest
import timm.optim
import torch
from flat import gathered
from small_runs import SETTINGS, make_streams, result, rows
from care import BYOL, CareError, c_stream_for, lr_at
from care.train import (
    LARC,
    LARS,
    SGD,
    AdamW,
    Optimizer,
    Schedule,
    Stopped,
    checkpoint,
    pretrain,
)
from care.train.losses import Losses
from care.train.optimizers import OPTIMIZERS, optimizer_settings, set_rates

STEPS = 3


@pytest.fixture(scope="module")
def model():
    """Both streams of the smallest encoder."""
    return Losses(*make_streams(), 100).to(memory_format=torch.channels_last)


def trained(model):
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def give_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for _, parameter in trained(model):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)


def moved(model, torch_optimizer, set_rate):
    """A copy of the model after some steps down made-up gradients, by an optimizer of the copy."""
    network = copy.deepcopy(model)
    optimizer = torch_optimizer(network)
    for step in range(STEPS):
        give_gradients(network, step)
        set_rate(optimizer, step)
        optimizer.step()
    return network.state_dict()


def by_value(model, optimizer):
    return moved(
        model,
        lambda network: optimizer.build(trained(network)),
        lambda of_torch, step: set_rates(of_torch, optimizer, step, total=STEPS, batch_size=512),
    )


def by_hand(model, groups_of, make, rates):
    def set_rate(optimizer, step):
        for group, rate in zip(optimizer.param_groups, rates(step), strict=True):
            group["lr"] = rate

    return moved(model, lambda network: make(groups_of(network)), set_rate)


def assert_close(state, others):
    assert state.keys() == others.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, others[name], rtol=1e-6, atol=1e-7, msg=name)


def everything(model):
    return [{"params": [p for _, p in trained(model)]}]


def weights_and_vectors(model):
    return [
        {"params": [p for _, p in trained(model) if p.ndim > 1]},
        {"params": [p for _, p in trained(model) if p.ndim == 1], "weight_decay": 0.0},
    ]


def cosine(step, base):
    return base * (1 + math.cos(math.pi * step / STEPS)) / 2


def test_plain_sgd_is_torchs_to_the_bit(model):
    got = by_value(model, SGD(lr=0.1))
    want = by_hand(
        model,
        everything,
        lambda groups: torch.optim.SGD(groups, lr=0, momentum=0.9, weight_decay=1e-4, fused=True),
        lambda step: [lr_at(step, total=STEPS, base=0.2)],
    )
    assert all(torch.equal(value, want[name]) for name, value in got.items())


def test_sgd_without_decay_of_biases_and_norms(model):
    got = by_value(model, SGD(lr=0.1, weight_decay=0.1, weights_only=True))
    want = by_hand(
        model,
        weights_and_vectors,
        lambda groups: torch.optim.SGD(groups, lr=0, momentum=0.9, weight_decay=0.1),
        lambda step: [cosine(step, 0.2)] * 2,
    )
    assert_close(got, want)


@pytest.mark.parametrize("adapts_all", [False, True])
def test_lars_and_larc_are_timms(model, adapts_all):
    optimizer = LARC(lr=0.6) if adapts_all else LARS(lr=0.6)

    def make(groups):
        groups[0]["always_adapt"] = True
        return timm.optim.Lars(groups, lr=0, momentum=0.9, weight_decay=1e-6, trust_coeff=0.001)

    groups_of = everything if adapts_all else weights_and_vectors
    got = by_value(model, optimizer)
    want = by_hand(model, groups_of, make, lambda step: [cosine(step, 1.2)] * len(groups_of(model)))
    assert_close(got, want)


def naive_lars(weights, gradients, momenta, rate, decay):
    """A step as MoCo v3's and Barlow Twins' papers have it: norms of the decayed gradient."""
    for name, weight in weights.items():
        update = gradients[name]
        if weight.ndim > 1:
            update = update + decay * weight
            norms = weight.norm(), update.norm()
            if min(norms) > 0:
                update = update * 0.001 * norms[0] / norms[1]
        momenta[name] = 0.9 * momenta.get(name, 0) + update
        weights[name] = weight - rate * momenta[name]


def test_lars_is_that_of_the_papers_up_to_the_decay_in_its_norm(model):
    network = copy.deepcopy(model)
    weights = {name: p.detach().double() for name, p in trained(network)}
    momenta = {}
    for step in range(STEPS):
        give_gradients(network, step)
        gradients = {name: p.grad.double() for name, p in trained(network)}
        naive_lars(weights, gradients, momenta, cosine(step, 1.2), 1e-6)
    got = by_value(model, LARS(lr=0.6))
    for name, weight in weights.items():
        torch.testing.assert_close(got[name].double(), weight, rtol=1e-5, atol=1e-6, msg=name)


def test_lars_without_decay_adapts_all_the_same(model):
    groups = LARS(weight_decay=0).build(trained(model)).param_groups
    assert [group["always_adapt"] for group in groups] == [False, True]
    assert [group["weight_decay"] for group in groups] == [0, 0]


@pytest.mark.parametrize("weights_only", [False, True])
def test_adamw_is_torchs(model, weights_only):
    groups_of = weights_and_vectors if weights_only else everything
    got = by_value(model, AdamW(lr=1e-3, weights_only=weights_only))
    want = by_hand(
        model,
        groups_of,
        lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, foreach=False),
        lambda step: [cosine(step, 2e-3)] * len(groups_of(model)),
    )
    assert_close(got, want)


# rates


def rates_of(optimizer, model, *, total, batch_size=256):
    of_torch = optimizer.build(trained(model))
    rates = []
    for step in range(total + 1):
        set_rates(of_torch, optimizer, step, total=total, batch_size=batch_size)
        rates.append([group["lr"] for group in of_torch.param_groups])
    return of_torch.param_groups, rates


def test_barlow_twins_weights_and_vectors_have_rates_of_their_own(model):
    optimizer = LARS(lr=0.2, vector_lr=0.0048, warmup=10, schedule=Schedule(final=0.001))
    groups, rates = rates_of(optimizer, model, total=100, batch_size=2048)
    assert [group["weight_decay"] for group in groups] == [0, 1e-6]
    assert all(parameter.ndim == 1 for parameter in groups[0]["params"])
    # their code: lr = batch / 256, times 0.2 and 0.0048, and a thousandth of it at the end
    for step in (10, 37, 99, 100):
        q = 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        factor = 8 * q + 8 * 0.001 * (1 - q)
        assert rates[step] == pytest.approx([0.0048 * factor, 0.2 * factor])
    assert rates[5] == pytest.approx([0.0048 * 4, 0.8], rel=1e-4)


def test_swavs_warm_up_begins_at_a_sixteenth_and_its_cosine_ends_at_a_thousandth(model):
    optimizer = LARC(lr=0.3, warmup=4, schedule=Schedule(start=1 / 16, final=0.001))
    _, rates = rates_of(optimizer, model, total=40, batch_size=4096)
    assert [rates[0][0], rates[2][0], rates[4][0]] == pytest.approx([0.3, 2.55, 4.8])
    assert rates[40] == pytest.approx([0.0048])


def test_simsiams_predictor_has_a_constant_rate(model):
    optimizer = SGD(lr=0.05, schedule=Schedule(constant=("c.predictor",)))
    groups, rates = rates_of(optimizer, model, total=10)
    names = {parameter: name for name, parameter in trained(model)}
    constant = {names[parameter] for parameter in groups[0]["params"]}
    assert constant == {name for name in names.values() if name.startswith("c.predictor.")}
    assert [rate[0] for rate in rates] == [0.05] * 11
    assert [rate[1] for rate in rates] == [lr_at(n, total=10, base=0.05) for n in range(11)]


def test_the_rates_of_moco_v1_fall_to_a_tenth_twice(model):
    optimizer = SGD(lr=0.03, schedule=Schedule(drops=(0.6, 0.8)))
    _, rates = rates_of(optimizer, model, total=200)
    assert {n: rates[n][0] for n in (0, 119, 120, 159, 160, 199)} == pytest.approx(
        {0: 0.03, 119: 0.03, 120: 0.003, 159: 0.003, 160: 0.0003, 199: 0.0003}
    )


def test_every_trained_parameter_is_in_one_group(model):
    schedule = Schedule(constant=("c.predictor", "t"))
    for make in OPTIMIZERS.values():
        groups = make(weights_only=True, schedule=schedule).build(trained(model)).param_groups
        members = [parameter for group in groups for parameter in group["params"]]
        assert len(members) == len({id(p) for p in members}) == len(trained(model))
        assert len(groups) == 4


# in a run


def train(data, run, **changes):
    """A tiny run of the C-stream alone."""
    c = c_stream_for("resnet18-small-half", objective=BYOL(hidden=32))
    return pretrain(data, run, c, **gathered(SETTINGS | {"size": 16} | changes))


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """An optimizer of one's own, in its three lines."""

    def build(self, parameters):
        return torch.optim.Adagrad([parameter for _, parameter in parameters], lr=self.lr)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(
            SGD(weights_only=True, schedule=Schedule(constant=("c.predictor",))),
            marks=pytest.mark.resume,
        ),
        pytest.param(LARS(vector_lr=0.01), marks=pytest.mark.resume),
        LARC(warmup=2),
        AdamW(),
        pytest.param(Adagrad(lr=0.01), marks=pytest.mark.resume),
    ],
    ids=[*OPTIMIZERS, "of-ones-own"],
)
def test_a_run_that_breaks_off_goes_on_to_the_same_bits(data, tmp_path, at_step, optimizer):
    train(data, tmp_path / "through", steps=3, optimizer=optimizer)
    at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(data, tmp_path / "broken", steps=3, optimizer=optimizer)
    at_step(None, None)
    train(data, tmp_path / "broken", steps=3, optimizer=optimizer)
    assert result(tmp_path / "broken") == result(tmp_path / "through")
    last = [checkpoint.latest(tmp_path / name) for name in ("broken", "through")]
    slots = [each.tensors("optimizer") for each in last]
    assert slots[0].keys() == slots[1].keys()
    assert all(torch.equal(value, slots[1][name]) for name, value in slots[0].items())


def test_an_optimizer_of_ones_own_has_the_usual_rate_and_its_name_in_the_settings(data, tmp_path):
    train(data, tmp_path, steps=1, optimizer=Adagrad(lr=0.01))
    assert rows(tmp_path)[0]["lr"] == 0.01 * SETTINGS["batch_size"] / 256
    assert checkpoint.latest(tmp_path).manifest["settings"]["optimizer"] == "adagrad"


def test_a_run_refuses_another_optimizer_by_name(data, tmp_path):
    train(data, tmp_path, steps=1, optimizer=LARS())
    assert checkpoint.latest(tmp_path).manifest["settings"]["optimizer"] == "lars"
    with pytest.raises(CareError, match=r"--optimizer lars, --lr 0\.45, .*sgd, --lr 0\.05"):
        train(data, tmp_path, steps=1, optimizer=SGD())
    with pytest.raises(CareError, match=r"with --optimizer lars; .*lars vector_lr=0\.1; repeat"):
        train(data, tmp_path, steps=1, optimizer=LARS(vector_lr=0.1))


def test_an_optimizer_that_may_change_begins_without_the_slots_of_the_other(data, tmp_path, capsys):
    train(data, tmp_path, steps=1)
    allowed = ["optimizer", "lr", "weight_decay", "epochs"]
    train(data, tmp_path, steps=2, optimizer=AdamW(lr=0.001), allow_change=allowed)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "goes on by another optimizer, which begins without" in said
    slots = checkpoint.latest(tmp_path).tensors("optimizer")
    counts = {value.item() for name, value in slots.items() if name.endswith("/step")}
    assert counts == {1.0}
    assert len(rows(tmp_path)) == 2


def test_plain_sgd_records_what_it_always_has():
    assert optimizer_settings(SGD()) == {"lr": 0.05, "warmup": 0, "weight_decay": 1e-4}
    recorded = optimizer_settings(SGD(weights_only=True))
    assert recorded["optimizer"] == "sgd weights_only=True"


def test_without_timm_lars_is_refused_before_there_is_a_run(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim.lars", None)
    with pytest.raises(CareError, match=r"timm's, which is not installed; pip install 'care-ssl"):
        train(data, tmp_path / "run", optimizer=LARS())
    assert not (tmp_path / "run").exists()
