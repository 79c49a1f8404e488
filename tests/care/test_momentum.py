import pytest
import torch
from torch import nn
from care import CareError, MomentumPair
from care.momentum import update_targets


def make_pair(seed=0):
    torch.manual_seed(seed)
    pair = MomentumPair(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    )
    for p in pair.online.parameters():
        nn.init.normal_(p)
    return pair


def test_the_target_starts_as_a_copy_without_gradients():
    network = nn.Linear(3, 2)
    pair = MomentumPair(network)
    assert pair.online is network
    for online, target in zip(pair.online.parameters(), pair.target.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()
        assert (online.requires_grad, target.requires_grad) == (True, False)


@pytest.mark.parametrize("momentum", [0, 0.3, 0.99, 0.9999, 1])
def test_every_parameter_moves_by_the_momentum(momentum):
    pair = make_pair()
    before = [p.double().clone() for p in pair.target.parameters()]
    online = [p.detach().clone() for p in pair.online.parameters()]
    want = [momentum * t + (1 - momentum) * o.double() for t, o in zip(before, online, strict=True)]
    pair.update(momentum)
    for got, expected in zip(pair.target.parameters(), want, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)
    assert all(
        torch.equal(now, then) for now, then in zip(pair.online.parameters(), online, strict=True)
    )
    assert not any(p.requires_grad for p in pair.target.parameters())


def test_the_ends_are_exact():
    pair = make_pair()
    before = [p.clone() for p in pair.target.parameters()]
    pair.update(1)
    assert all(
        torch.equal(now, then) for now, then in zip(pair.target.parameters(), before, strict=True)
    )
    pair.update(0)
    assert all(
        torch.equal(o, t)
        for o, t in zip(pair.online.parameters(), pair.target.parameters(), strict=True)
    )


def test_buffers_are_the_targets_own():
    pair = make_pair()
    images = torch.randn(6, 3, 4, 4)
    pair.online(images)
    pair.target(2 * images + 1)
    online, target = (dict(network.named_buffers()) for network in (pair.online, pair.target))
    before = {name: buffer.clone() for name, buffer in target.items()}
    assert not torch.equal(online["1.running_mean"], target["1.running_mean"])
    pair.update(0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in target.items())


def test_many_pairs_in_one_call_are_the_same_as_each_by_itself():
    together, apart = [make_pair(1), make_pair(2)], [make_pair(1), make_pair(2)]
    update_targets(together, 0.7)
    for pair in apart:
        pair.update(0.7)
    for pair1, pair2 in zip(together, apart, strict=True):
        assert all(
            torch.equal(a, b)
            for a, b in zip(pair1.target.parameters(), pair2.target.parameters(), strict=True)
        )


def test_parameters_are_matched_by_name_not_by_order():
    pair = MomentumPair(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}))
    for p in pair.online.parameters():
        nn.init.normal_(p)
    pair.online = nn.ModuleDict({"b": pair.online["b"], "a": pair.online["a"]})
    pair.update(0)
    assert torch.equal(pair.target["a"].weight, pair.online["a"].weight)
    assert torch.equal(pair.target["b"].weight, pair.online["b"].weight)


def test_networks_that_no_longer_match_are_refused():
    pair = make_pair()
    pair.online[3] = nn.Linear(16, 6)
    with pytest.raises(
        CareError,
        match=r"online and target must have equal parameters; they differ at 3\.weight, 3\.bias",
    ):
        pair.update(0.9)
    pair.online.append(nn.Linear(6, 2))
    with pytest.raises(CareError, match=r"differ at 4\.bias, 4\.weight"):
        pair.update(0.9)
