"""Trainings that begin with weights that were trained before."""

import copy
import pytest
import torch
from foreign_weights import assert_same
from small_runs import STEPS, make_streams, rows, train
from torch import nn
from care import BYOL, CareError, CStream, SimSiam, build_encoder
from care.momentum import Pair
from care.sequential import sequential_stream
from care.train import checkpoint, load_encoder, weights
from care.train.initial import start_from


class FollowingPair(nn.Module, Pair):
    """A pair of one's own, whose target has another name."""

    def __init__(self, online):
        super().__init__()
        self.online = online
        self.slow = copy.deepcopy(online).requires_grad_(False)

    def forward(self, online, target):
        return [self.online(view) for view in online], [self.slow(view) for view in target]

    def followers(self):
        return [*zip(self.slow.parameters(), self.online.parameters(), strict=True)]


@pytest.fixture
def file(tmp_path):
    """A file of the small encoder's weights."""
    torch.manual_seed(7)
    encoder = build_encoder("resnet18-small-half")
    encoder(torch.randn(2, 3, 32, 32))
    weights.save_encoder(tmp_path / "theirs.safetensors", encoder, size=64)
    return tmp_path / "theirs.safetensors"


def test_both_encoders_start_from_it_and_all_else_as_drawn(file):
    c, _ = make_streams()
    fresh, _ = make_streams()
    digest = start_from(file, c)
    wanted = load_encoder(file)
    assert digest == weights.digest_of(wanted)
    for network in (c.backbone.online, c.backbone.target):
        assert_same(network.state_dict(), wanted.state_dict())
    for part in ("projector", "predictor"):
        assert_same(getattr(c, part).state_dict(), getattr(fresh, part).state_dict())
    assert not any(weight.requires_grad for weight in c.backbone.target.parameters())


def test_the_encoder_in_a_sequential_stream_and_one_without_target_start_from_it(file):
    wanted = load_encoder(file).state_dict()
    one = sequential_stream("resnet18-small-half:layer4", size=32, blocks=1)
    start_from(file, one)
    for network in (one.backbone.online, one.backbone.target):
        assert_same(network.encoder.state_dict(), wanted)
    of_another_kind = CStream(FollowingPair(build_encoder("resnet18-small-half")), BYOL(hidden=8))
    start_from(file, of_another_kind)
    for network in (of_another_kind.backbone.online, of_another_kind.backbone.slow):
        weights_of_network = dict(network.named_parameters())
        assert_same(weights_of_network, {name: wanted[name] for name in weights_of_network})
    alone, _ = make_streams(objective=SimSiam(hidden=8))
    start_from(file, alone)
    assert_same(alone.backbone.online.state_dict(), wanted)


def test_the_target_of_a_pair_of_ones_own_has_the_positions_of_the_weights(tmp_path):
    vit = build_encoder("vit-tiny8")
    vit.fit(16)
    weights.save_encoder(tmp_path / "vit.safetensors", vit, size=16)
    c = CStream(FollowingPair(build_encoder("vit-tiny8")), BYOL(hidden=8))
    start_from(tmp_path / "vit.safetensors", c)
    assert c.backbone.online.grid == c.backbone.slow.grid == 2


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet18-small", "wanted initial weights for the encoder resnet18-small, got those of "),
        ("resnet18-half", r"got those of resnet18-small-half in .*; give --encoder resnet18-small"),
    ],
)
def test_weights_of_another_architecture_are_refused(file, encoder, message):
    from care import streams_for

    c, _ = streams_for(encoder, size=32, blocks=1, objective=BYOL(hidden=8))
    with pytest.raises(CareError, match=message):
        start_from(file, c)


def test_a_run_starts_from_it_records_it_and_goes_on_only_with_it(file, data, tmp_path, whole):
    run = tmp_path / "run"
    train(data, run, init=file)
    assert rows(run)[0]["total"] != rows(whole)[0]["total"]
    settings = checkpoint.latest(run).manifest["settings"]
    assert settings["init"] == weights.digest_of(load_encoder(file))
    moved = file.rename(tmp_path / "moved.safetensors")
    assert train(data, run, init=moved).steps == STEPS  # wherever the file lies
    with pytest.raises(CareError, match=r"with --init [0-9a-f]+; this call has --init None; "):
        train(data, run)
    with pytest.raises(CareError, match="does not exist"):
        train(data, tmp_path / "other", init=file)
    assert not (tmp_path / "other").exists()
