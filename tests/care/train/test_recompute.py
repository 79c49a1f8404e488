"""Activations that are computed again: the same gradients and statistics, and less memory."""

import copy
from contextlib import suppress
import pytest
import torch
from flat import gathered
from memory import peak
from processes import together
from small_runs import SETTINGS, CrashError, crash, make_streams, result
from torch import nn
from care import BYOL, CareError, CStream, MomentumPair, build_encoder, care_loss, streams_for
from care.encoded import Encoded
from care.train import pretrain, ranks
from care.train import view_threads as threads_room
from care.train.losses import Losses
from care.train.norm import synchronise
from care.train.recompute import blocks_of, chosen_blocks, recomputing
from care.train.view_threads import views_in_threads

SIZE = 16
OBJECTIVE = BYOL(hidden=24, dim=16)


def streams(encoder="resnet18-small-half", **changes):
    c, t = streams_for(
        encoder, **{"size": SIZE, "seed": 2, "blocks": 2, "objective": OBJECTIVE} | changes
    )
    generator = torch.Generator().manual_seed(5)
    for layer in t.modules():  # a last γ of zero would hide the attention
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
    return c.double(), t.double()


def views(batch=6, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, batch, 3, size, size, generator=generator, dtype=torch.float64)


def step(c, t, batch):
    """Losses, gradients and statistics of a step."""
    torch.manual_seed(0)  # of dropout
    out = c(*batch)
    loss = care_loss(out, t(out.maps))
    loss.total.backward()
    return outcome(c, t, loss)


def outcome(c, t, loss):
    trained = [p for stream in (c, t) for p in stream.parameters() if p.requires_grad]
    statistics = [buffer.clone() for stream in (c, t) for buffer in stream.buffers()]
    return [torch.stack(loss).detach(), *(p.grad for p in trained), *statistics]


@pytest.mark.parametrize(
    ("encoder", "which"),
    [
        ("resnet18-small-half", "some"),
        ("resnet18-small-half", "all"),
        ("resnet18-small-half-gray", "all"),
        ("torchvision:mobilenet_v3_small:features.8", "all"),  # with dropout
    ],
)
def test_gradients_and_statistics_keep_their_bits(encoder, which):
    plain = streams(encoder, size=32)
    ours = copy.deepcopy(plain)
    want = step(*plain, views(4, 32))
    with recomputing(*ours, which):
        got = step(*ours, views(4, 32))
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("which", ["some", "all"])
def test_so_they_do_with_a_thread_for_each_view(which, monkeypatch):
    monkeypatch.setattr(threads_room, "limit_threads", lambda: None)
    plain = streams()
    ours = copy.deepcopy(plain)
    torch.set_num_threads(2)
    try:
        with views_in_threads(*plain, size=SIZE) as embed:
            loss = care_loss(*embed(*views()))
            loss.total.backward()
            want = outcome(*plain, loss)
        with recomputing(*ours, which), views_in_threads(*ours, size=SIZE) as embed:
            loss = care_loss(*embed(*views()))
            loss.total.backward()
            got = outcome(*ours, loss)
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, got, want))


def test_on_two_processes_batch_norms_have_the_statistics_of_both():
    want = step(*streams(), views())

    def work():
        c, t = streams()
        model = Losses(c, t, 100.0)
        synchronise(model)
        part = [view.chunk(2)[ranks.rank()] for view in views()]
        with recomputing(c, t, "all"):
            parallel = ranks.parallel(model)
            parallel(part)["total"].backward()
        return [p.grad for p in model.parameters() if p.requires_grad], list(model.buffers())

    c, t = streams()
    gradients = [p.grad for p in Losses(c, t, 100.0).parameters() if p.requires_grad]
    for got, statistics in together(2, work):
        torch.testing.assert_close(got, want[1 : 1 + len(gradients)], rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(statistics, want[1 + len(gradients) :])


def test_what_a_network_draws_is_drawn_once():
    class Dropped(nn.Module):
        features = 8

        def __init__(self):
            super().__init__()
            block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.ReLU())
            self.blocks = nn.Sequential(
                nn.Sequential(block), nn.Sequential(copy.deepcopy(block)[1:])
            )

        def forward(self, x):
            maps = self.blocks(x)
            return Encoded(maps, maps.mean((2, 3)))

    plain = CStream(MomentumPair(Dropped()), OBJECTIVE)
    ours = copy.deepcopy(plain)
    batch = views().float()

    def gradients(c):
        torch.manual_seed(3)
        care_loss(c(*batch), None).total.backward()
        return [p.grad for p in c.parameters() if p.requires_grad] + [torch.rand(3)]

    want = gradients(plain)
    with recomputing(ours, None, "all"):
        assert chosen_blocks(ours, None, "all")
        got = gradients(ours)
    assert all(map(torch.equal, got, want))


def test_a_step_needs_less_memory():
    batch = torch.randn(2, 32, 3, 32, 32)
    taken = {}
    for which in ("none", "some", "all"):
        c, t = (stream.float() for stream in streams(size=32))

        def backward(c=c, t=t, which=which):
            with recomputing(c, t, which):
                out = c(*batch)
                care_loss(out, t(out.maps)).total.backward()

        taken[which] = peak(backward)
    assert taken["all"] < taken["some"] < 0.9 * taken["none"]


def test_the_blocks_are_the_items_of_a_network_in_a_row():
    c, t = streams_for("resnet50", size=32, objective=OBJECTIVE)
    names = [type(block.module).__name__ for block in chosen_blocks(c, t, "all")]
    assert names == ["ResNetEncoder", *["Bottleneck"] * 16, *["AttentionBlock"] * 5]
    some = chosen_blocks(c, t, "some")
    layers = [*c.backbone.online.layer1, *c.backbone.online.layer2]
    assert [block.module for block in some] == [c.backbone.online, *layers]
    assert chosen_blocks(c, t, "none") == []
    tokens = blocks_of(build_encoder("vit-tiny8"))
    assert {type(block.module).__name__ for block in tokens} == {"Block"}


def test_networks_are_what_they_were_afterwards():
    c, t = streams()
    kinds = [type(module) for stream in (c, t) for module in stream.modules()]
    with suppress(CareError), recomputing(c, t, "all"):
        assert [type(module) for module in c.modules()] != kinds[: len([*c.modules()])]
        raise CareError("in the middle")
    assert [type(module) for stream in (c, t) for module in stream.modules()] == kinds


def test_a_run_has_the_same_bytes_and_may_change_its_mind(whole, data, tmp_path, at_step):
    def run(folder, **changes):
        pretrain(data, folder, *make_streams(), **gathered(SETTINGS | changes))

    run(tmp_path / "all", recompute="all")
    assert result(tmp_path / "all") == result(whole)
    at_step(3, crash)
    with pytest.raises(CrashError):
        run(tmp_path / "mixed", recompute="some")
    at_step(-1, crash)
    run(tmp_path / "mixed")
    assert result(tmp_path / "mixed") == result(whole)
