import pytest
import torch
import torchvision
from torch import nn

from care import ENCODERS, CareError, build_encoder, resnet18, resnet50
from care.encoders import STAGES, map_shape

PEERS = {
    "resnet18": ("resnet18", 11_689_512),
    "resnet50": ("resnet50", 25_557_032),
    "resnet50x2": ("wide_resnet50_2", 68_883_240),
    "resnet101": ("resnet101", 44_549_160),
    "resnet152": ("resnet152", 60_192_808),
}
"""Our name: torchvision's, and the parameters that its documentation states, with the 1000-way classifier."""


def count(module):
    return sum(p.numel() for p in module.parameters())


def randomise_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)


def stage_outputs(network, images):
    """What torchvision's network gives after every stage, and before its classifier."""
    maps = {}
    for name in STAGES:
        getattr(network, name).register_forward_hook(lambda module, args, out, name=name: maps.update({name: out}))
    network.fc = nn.Identity()
    features = network(images)
    return maps, features


@pytest.mark.parametrize("name", PEERS)
def test_the_networks_are_torchvisions_without_classifier(name):
    peer, published = PEERS[name]
    with torch.device("meta"):
        encoder, reference = build_encoder(name), torchvision.models.get_model(peer)
    want = {key: p.shape for key, p in reference.state_dict().items() if not key.startswith("fc.")}
    assert {key: p.shape for key, p in encoder.state_dict().items()} == want
    assert count(encoder) + count(reference.fc) == published
    assert encoder.features == reference.fc.in_features


@pytest.mark.parametrize(("ours", "peer"), [(resnet18, torchvision.models.resnet18), (resnet50, torchvision.models.resnet50)])
def test_equal_weights_give_equal_outputs(ours, peer):
    torch.manual_seed(0)
    reference = peer().eval()
    randomise_statistics(reference)
    encoder = ours().eval()
    encoder.load_state_dict({key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")})
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        encoded, maps = encoder(images), encoder.maps(images)
        want, features = stage_outputs(reference, images)
    assert maps.keys() == want.keys()
    for stage, map_ in maps.items():
        torch.testing.assert_close(map_, want[stage])
    torch.testing.assert_close(encoded.map, want["layer3"])
    torch.testing.assert_close(encoded.features, features)


def test_the_small_variant_is_the_same_net_behind_another_stem():
    torch.manual_seed(0)
    reference = torchvision.models.resnet18()
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()
    randomise_statistics(reference.eval())
    encoder = resnet18(small=True).eval()
    encoder.load_state_dict({key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoded, (want, features) = encoder(images), stage_outputs(reference, images)
    torch.testing.assert_close(encoded.map, want["layer3"])
    torch.testing.assert_close(encoded.features, features)
    assert encoded.map.shape == (2, 256, 8, 8)
    assert {stage: m.shape[2] for stage, m in encoder.maps(images).items()} == {"layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}


def test_half_has_half_of_the_channels_in_every_stage():
    images = torch.zeros(1, 3, 32, 32)
    for small in (False, True):
        whole, half = resnet18(small=small).eval(), resnet18(small=small, half=True).eval()
        for one, two in zip(whole.maps(images).values(), half.maps(images).values(), strict=True):
            assert (one.shape[1], *one.shape[2:]) == (2 * two.shape[1], *two.shape[2:])
        assert half.features == 256 == half(images).features.shape[1]


@pytest.mark.parametrize("tap", STAGES)
def test_any_stage_can_be_tapped(tap):
    torch.manual_seed(0)
    encoder = resnet18(small=True, half=True, tap=tap).eval()
    images = torch.randn(2, 3, 32, 32)
    encoded = encoder(images)
    assert torch.equal(encoded.map, encoder.maps(images)[tap])
    assert torch.equal(encoded.features, encoder.maps(images)["layer4"].mean((2, 3)))


def test_the_last_norm_of_every_block_starts_at_zero():
    for module in resnet18(small=True, half=True).modules():
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            assert not module.bn2.weight.any()


def test_an_unknown_tap_is_refused():
    with pytest.raises(CareError, match="wanted a tap among layer1, layer2, layer3, layer4, got 'layer5'"):
        resnet50(tap="layer5")


def test_every_encoder_is_rebuilt_by_its_name():
    with torch.device("meta"):
        assert {name: build_encoder(name).name for name in ENCODERS} == {name: name for name in ENCODERS}


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(CareError, match=r"no encoder is called 'resnet51'; choose one of resnet18, .*resnet152"):
        build_encoder("resnet51")


@pytest.mark.parametrize("training", [True, False])
def test_map_shape_leaves_the_encoder_as_it_was(training, untouched_generator):
    encoder = resnet18(small=True, half=True).train(training)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with untouched_generator():
        assert map_shape(encoder, 64) == (128, 8, 8)
        assert map_shape(encoder, (40, 72)) == (128, 5, 9)
    assert {module.training for module in encoder.modules()} == {training}
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_map_shape_leaves_the_mode_after_a_failure_too():
    encoder = resnet18(small=True, half=True)
    encoder.layer4 = nn.Conv2d(7, 7, 1)
    with pytest.raises(RuntimeError, match="channels"):
        map_shape(encoder, 64)
    assert encoder.training
