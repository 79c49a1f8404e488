from copy import deepcopy
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from care import ENCODERS, CareError, TappedEncoder, build_encoder, resnet18, resnet50, streams_for
from care.encoded import map_shape
from care.encoders import STAGES
from care.train.photometrics import MEAN, STD

# our name: torchvision's, and the parameters that its documentation states, with the classifier
PEERS = {
    "resnet18": ("resnet18", 11_689_512),
    "resnet50": ("resnet50", 25_557_032),
    "resnet50x2": ("wide_resnet50_2", 68_883_240),
    "resnet101": ("resnet101", 44_549_160),
    "resnet152": ("resnet152", 60_192_808),
}


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
        getattr(network, name).register_forward_hook(
            lambda module, args, out, name=name: maps.update({name: out})
        )
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


@pytest.mark.parametrize(
    ("ours", "peer"),
    [(resnet18, torchvision.models.resnet18), (resnet50, torchvision.models.resnet50)],
)
def test_equal_weights_give_equal_outputs(ours, peer):
    torch.manual_seed(0)
    reference = peer().eval()
    randomise_statistics(reference)
    encoder = ours().eval()
    encoder.load_state_dict(
        {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    )
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
    encoder.load_state_dict(
        {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoded, (want, features) = encoder(images), stage_outputs(reference, images)
    torch.testing.assert_close(encoded.map, want["layer3"])
    torch.testing.assert_close(encoded.features, features)
    assert encoded.map.shape == (2, 256, 8, 8)
    sides = {stage: stage_map.shape[2] for stage, stage_map in encoder.maps(images).items()}
    assert sides == {"layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}


def test_half_has_half_of_the_channels_in_every_stage():
    images = torch.zeros(1, 3, 32, 32)
    for small in (False, True):
        full, half = resnet18(small=small).eval(), resnet18(small=small, half=True).eval()
        half_maps = half.maps(images)
        for stage, full_map in full.maps(images).items():
            assert full_map.shape[1] == 2 * half_maps[stage].shape[1]
            assert full_map.shape[2:] == half_maps[stage].shape[2:]
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
    with pytest.raises(
        CareError, match="wanted a tap among layer1, layer2, layer3, layer4, got 'layer5'"
    ):
        resnet50(tap="layer5")


def test_every_encoder_is_rebuilt_by_its_name():
    with torch.device("meta"):
        assert [build_encoder(name).name for name in ENCODERS] == [*ENCODERS]


@pytest.mark.parametrize("name", ["resnet18-gray", "resnet18-cifar-gray"])
def test_a_gray_stem_sees_the_luma_of_its_input(name):
    torch.manual_seed(0)
    gray = build_encoder(name).eval()
    color = build_encoder(name.removesuffix("-gray")).eval()
    assert gray.conv1.weight.shape[1] == 1
    assert count(color) - count(gray) == 2 * gray.conv1.weight.numel()
    # a kernel of one channel on the luma is one of three channels in the luma's parts
    state = gray.state_dict()
    luma = torch.tensor([0.299, 0.587, 0.114])
    state["conv1.weight"] = state["conv1.weight"] * luma[:, None, None]
    color.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(gray(images).map, color(images).map)
        torch.testing.assert_close(gray(images).features, color(images).features)


def test_a_gray_stem_has_full_precision_under_autocast():
    gray = build_encoder("resnet18-small-half-gray").eval()
    seen = []
    gray.conv1.register_forward_pre_hook(lambda _, pixels: seen.append(pixels[0]))
    images = torch.randn(2, 3, 16, 16)
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gray(images)
    assert torch.equal(*seen)


def test_libraries_take_the_weights_of_a_gray_encoder_and_its_pixels_as_documented():
    gray = build_encoder("resnet18-gray").eval()
    peer = timm.create_model("resnet18", in_chans=1, num_classes=0).eval()
    peer.load_state_dict(gray.state_dict())
    pixels = torch.rand(2, 1, 64, 64)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        want = gray((pixels - mean) / std).features
        got = peer((pixels - 0.45883) / 0.22559)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        CareError,
        match=r"no encoder is called 'resnet51'; choose one of resnet18, .*resnet152.*did you mean",
    ):
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


# Tables 1 and 2: millions of parameters, truncated or rounded, and billions of multiply-adds at
# 224 px, both with the classifier
PAPER = {
    "resnet50": (25, 4.1),
    "resnet50x2": (69, 11.4),
    "resnet101": (45, 7.8),
    "resnet152": (60, 11.6),
}


@pytest.mark.parametrize("name", PAPER)
def test_parameters_and_multiply_adds_are_the_papers_within_2_per_cent(name):
    millions, billions = PAPER[name]
    with torch.device("meta"):
        encoder = build_encoder(name)
        with FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, 224, 224))
    classifier = encoder.features * 1000
    assert (counter.get_total_flops() / 2 + classifier) / 1e9 == pytest.approx(billions, rel=0.02)
    parameters = (count(encoder) + classifier + 1000) / 1e6
    assert millions in (int(parameters), round(parameters)) or parameters == pytest.approx(
        millions, rel=0.02
    )


# any CNN

# name: channels and side of the map at 224 px, features
CNNS = {
    "torchvision:wide_resnet50_2:layer3": (1024, 14, 2048),
    "torchvision:resnext50_32x4d:layer3": (1024, 14, 2048),
    "torchvision:regnet_y_400mf:trunk_output.block3": (208, 14, 440),
    "torchvision:convnext_tiny:features.5": (384, 14, 768),
    "torchvision:efficientnet_b0:features.5": (112, 14, 1280),
    "timm:resnet18:layer3": (256, 14, 512),
    "timm:resnext26ts:stages.2": (1024, 14, 2048),
    "timm:regnety_002:s3": (152, 14, 368),
    "timm:convnext_atto:stages.2": (160, 14, 320),
    "timm:efficientnet_b0:blocks.4": (112, 14, 1280),
}


@pytest.mark.parametrize("name", CNNS)
def test_any_cnn_is_an_encoder_by_naming_a_tap(name):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="the extra timm is not installed")
    channels, side, features = CNNS[name]
    encoder = build_encoder(name)
    assert encoder.training
    assert (encoder.name, encoder.features) == (name, features)
    assert map_shape(encoder, 224) == (channels, side, side)
    images = torch.randn(2, 3, 64, 96)
    out = encoder.eval()(images)
    assert out.map.shape == (2, channels, 4, 6)
    model = encoder.model
    assert torch.equal(out.features, model(images))  # the classifier is gone
    assert not any(isinstance(m, nn.Linear) and m.out_features == 1000 for m in model.modules())
    maps = encoder.maps(images)
    assert [64 // x.shape[2] for x in maps.values()][-4:] == [4, 8, 16, 32]
    assert torch.equal(list(maps.values())[-2], out.map)  # what the error lists is what one wants
    copied = deepcopy(encoder)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert copied(images).map.abs().max() < out.map.abs().max()  # a copy's map is its own
    assert torch.equal(encoder(images).map, out.map)


def test_both_streams_fit_around_any_cnn():
    c, t = streams_for("torchvision:regnet_y_400mf:trunk_output.block3", size=(64, 96), blocks=2)
    x = torch.randn(2, 3, 64, 96)
    assert t(c(x, x).maps).online[0].shape == (2, 256)
    assert t.backbone.online.blocks[0].reduce[0].in_channels == 208
    assert t.backbone.online.features == c.backbone.online.features == 440


def test_a_wrong_tap_lists_the_right_ones():
    wanted = r"the last of each size \(at 224 px\) are: .*layer3 \(256×14×14\), layer4"
    with pytest.raises(CareError, match=f"'layer9' is no tap of this ResNet; {wanted}"):
        build_encoder("torchvision:resnet18:layer9")
    with pytest.raises(CareError, match=r"'' is no tap"):
        build_encoder("torchvision:resnet18")
    # channels last: tokens, not a map
    with pytest.raises(CareError, match=r"'features\.5\.0\.block\.2' is no tap"):
        build_encoder("torchvision:convnext_tiny:features.5.0.block.2")


def test_an_unknown_model_names_those_alike():
    with pytest.raises(CareError, match=r"torchvision has no model 'resnet5'; it has .*resnet50"):
        build_encoder("torchvision:resnet5:layer3")


def test_a_network_without_pooled_features_is_refused():
    with pytest.raises(
        CareError, match=r"pooled features \[b, d\], Sequential gives something else"
    ):
        TappedEncoder(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), "0")


def test_a_last_layer_that_is_no_classifier_stays():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.ReLU()
    )
    assert TappedEncoder(model, "0").features == 6


@pytest.mark.parametrize("name", ["resnet50:layer4", "resnet18-small:layer2"])
def test_a_tap_is_part_of_the_name(name):
    encoder = build_encoder(name)
    assert (encoder.name, encoder.tap) == (name, name.split(":")[1])
