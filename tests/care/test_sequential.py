"""The sequential design: one stream, the transformer behind the encoder."""

import pytest
import torch
from care import BYOL, CareError, SimCLR, SinCosPosition, care_loss, streams_for
from care.sequential import sequential_stream


@pytest.fixture
def views() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 48, 48, generator=generator) for _ in range(2)]


def test_the_features_are_the_transformers_of_the_encoders_last_map(views) -> None:
    c = sequential_stream("resnet18-small-half:layer4", size=48, objective=BYOL(hidden=8)).eval()
    online = c.backbone.online
    with torch.no_grad():
        last_map = online.encoder.maps(views[0])["layer4"]
        features = online(views[0]).features
        torch.testing.assert_close(features, online.transformer(last_map))
    assert last_map.shape[1:] == (256, 3, 3)
    assert features.shape == (4, 256)


def test_its_loss_trains_the_encoder_through_the_transformer(views) -> None:
    c = sequential_stream("resnet18-small-half:layer4", size=48, objective=BYOL(hidden=8))
    care_loss(c(*views)).total.backward()
    assert all(parameter.grad is not None for parameter in c.online_parameters())
    assert c.backbone.online.encoder.conv1.weight.grad.any()


def test_its_encoder_starts_as_that_of_the_two_streams() -> None:
    c_alone = sequential_stream("resnet18-small-half:layer4", size=48, seed=3)
    c, _ = streams_for("resnet18-small-half", size=48, seed=3)
    ours = c_alone.backbone.online.encoder.state_dict()
    theirs = c.backbone.online.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    again = sequential_stream("resnet18-small-half:layer4", size=48, seed=3)
    state = again.state_dict()
    assert all(value.equal(state[name]) for name, value in c_alone.state_dict().items())


def test_blocks_positions_and_objective_are_those_that_were_asked_for() -> None:
    c = sequential_stream(
        "resnet18-small-half:layer4",
        size=32,
        blocks=2,
        position=SinCosPosition,
        zero_gamma=False,
        objective=SimCLR(hidden=8, dim=4),
    )
    blocks = c.backbone.online.transformer.blocks
    assert len(blocks) == 2
    assert type(blocks[0].attention.position) is SinCosPosition
    assert blocks[0].expand[-1].weight.all()
    assert c.objective == SimCLR(hidden=8, dim=4)


def test_an_unknown_encoder_is_told() -> None:
    with pytest.raises(CareError, match="no encoder is called"):
        sequential_stream("resnet19", size=32)
