"""The transformer of a T-stream, out of a run's checkpoint."""

import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, SIZE, make_streams
from care import (
    BYOL,
    AbsolutePosition,
    CareError,
    NoPosition,
    SinCosPosition,
    c_stream_for,
)
from care.sequential import sequential_stream
from care.train import pretrain
from care.train.stored_transformer import load_stream

SHORT = gathered(SETTINGS | {"steps": 1, "warmup": 0})


def embedded(encoder, transformer):
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return transformer.eval()(encoder.eval()(images).map)


def test_it_computes_what_the_trained_one_does_online_and_target(data, tmp_path) -> None:
    c, t = make_streams(blocks=2)
    pretrain(data, tmp_path / "run", c, t, **SHORT)
    for role, source in (("online", "run"), ("online", "run:online"), ("target", "run:target")):
        networks = load_stream(f"{tmp_path}/{source}")
        trained = (getattr(pair, role) for pair in (c.backbone, t.backbone))
        torch.testing.assert_close(embedded(*networks), embedded(*trained), rtol=1e-4, atol=1e-6)
        assert len(networks.transformer.blocks) == 2
        assert not networks.transformer.training


def test_its_positions_are_those_of_its_weights_or_are_to_be_named(data, tmp_path) -> None:
    for position in (AbsolutePosition, SinCosPosition):
        c, t = make_streams(position=position, zero_gamma=False)
        run = tmp_path / position.__name__
        pretrain(data, run, c, t, **SHORT)
        if position is SinCosPosition:
            with pytest.raises(CareError, match=r"no learned positions.*care\.SinCosPosition"):
                load_stream(run)
            plain = load_stream(run, position=NoPosition)
            trained = (c.backbone.online, t.backbone.online)
            assert not torch.allclose(embedded(*plain), embedded(*trained), rtol=1e-3)
        networks = load_stream(run, position=position if position is SinCosPosition else None)
        trained = (c.backbone.online, t.backbone.online)
        torch.testing.assert_close(embedded(*networks), embedded(*trained), rtol=1e-4, atol=1e-6)


def test_of_the_sequential_design_it_is_the_one_behind_the_encoder(data, tmp_path) -> None:
    c = sequential_stream(
        "resnet18-small-half:layer4", size=SIZE, blocks=1, objective=BYOL(hidden=32)
    )
    pretrain(data, tmp_path, c, None, **SHORT)
    networks = load_stream(tmp_path)
    network = c.backbone.online
    torch.testing.assert_close(
        embedded(*networks), embedded(network.encoder, network.transformer), rtol=1e-4, atol=1e-6
    )


def test_where_there_is_none_there_is_none(data, tmp_path) -> None:
    c = c_stream_for("resnet18-small-half", objective=BYOL(hidden=32))
    pretrain(data, tmp_path, c, None, **SHORT)
    assert load_stream(tmp_path) is None
    assert load_stream(tmp_path / "encoder.safetensors") is None
    assert load_stream("random:resnet18") is None
    with pytest.raises(CareError, match="holds no checkpoint"):
        load_stream(tmp_path.parent)
