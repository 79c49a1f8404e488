from copy import deepcopy
import pytest
import torch
from torch import nn
from care import BYOL, CareError, CStream, MomentumPair, care_loss, resnet18
from care.momentum import Pair, update_targets


def make_pair(seed=0):
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    pair = MomentumPair(nn.Sequential(*layers))
    for p in pair.online.parameters():
        nn.init.normal_(p)
    return pair


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


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
    assert same(pair.online.parameters(), online)
    assert not any(p.requires_grad for p in pair.target.parameters())


def test_the_ends_are_exact():
    pair = make_pair()
    before = [p.clone() for p in pair.target.parameters()]
    pair.update(1)
    assert same(pair.target.parameters(), before)
    pair.update(0)
    assert same(pair.online.parameters(), pair.target.parameters())


def test_the_target_goes_before_anything_is_kept_for_a_backward_pass():
    """What it computes is gone then, and so a step needs less memory."""
    pair = make_pair()
    order = []

    def note(network, _images, _output):
        order.append((network is pair.online, torch.is_grad_enabled()))

    for network in (pair.online, pair.target):
        network.register_forward_hook(note)
    views = [*torch.randn(2, 6, 3, 4, 4)]
    pair(views, views)
    assert order == [(False, False)] * 2 + [(True, True)] * 2


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
        assert same(pair1.target.parameters(), pair2.target.parameters())


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
    message = r"online and target must have equal parameters; they differ at 3\.weight, 3\.bias"
    with pytest.raises(CareError, match=message):
        pair.update(0.9)
    pair.online.append(nn.Linear(6, 2))
    with pytest.raises(CareError, match=r"differ at 4\.bias, 4\.weight"):
        pair.update(0.9)


class StandingPair(nn.Module, Pair):
    """A target that stays as it was initialised."""

    def __init__(self, online):
        super().__init__()
        self.online = online
        self.target = deepcopy(online).requires_grad_(False)

    def forward(self, online, target):
        with torch.no_grad():
            target_outputs = [self.target(view) for view in target]
        return [self.online(view) for view in online], target_outputs

    def followers(self):
        return []


def test_a_stream_takes_a_pair_of_ones_own():
    torch.manual_seed(0)
    c = CStream(StandingPair(resnet18(small=True, half=True)), BYOL(hidden=8, dim=4))
    assert isinstance(c.projector, StandingPair)
    before = [
        p.clone() for p in (*c.backbone.target.parameters(), *c.projector.target.parameters())
    ]
    out = c(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32))
    care_loss(out).total.backward()
    c.update(0)
    after = (*c.backbone.target.parameters(), *c.projector.target.parameters())
    assert same(after, before)
    assert not any(p.requires_grad for p in after)
    assert all(p.grad is not None for p in c.online_parameters())
