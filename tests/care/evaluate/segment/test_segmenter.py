"""The network: a ResNet's dilated last stage, the heads, and where the places of a map lie."""

import copy
import pytest
import torch
from segmenting import make_encoder
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet
from care import CareError, resnet50
from care.evaluate.segmenter import Segmenter, SegmenterShape, dilate_last_stage
from care.train.photometrics import normalize


def make(name="resnet18-small-half", classes=3, **shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Segmenter(make_encoder(name=name), classes, SegmenterShape(channels=8, **shape))


def test_a_bottleneck_is_dilated_as_torchvision_dilates_it_but_for_its_first_block() -> None:
    encoder = resnet50()
    dilate_last_stage(encoder)
    reference = resnet.resnet50(replace_stride_with_dilation=[False, False, True])
    ours = [layer for layer in encoder.layer4.modules() if isinstance(layer, nn.Conv2d)]
    theirs = [layer for layer in reference.layer4.modules() if isinstance(layer, nn.Conv2d)]
    for number, (layer, other) in enumerate(zip(ours, theirs, strict=True)):
        assert layer.stride == other.stride == (1, 1)
        # torchvision leaves the first 3×3 convolution undilated; MoCo dilates all of conv5
        if number != 1:
            assert (layer.dilation, layer.padding) == (other.dilation, other.padding)
    assert ours[1].dilation == ours[1].padding == (2, 2)


def test_a_dilated_basic_block_computes_what_it_says() -> None:
    encoder = make_encoder()
    dilated = copy.deepcopy(encoder)
    dilate_last_stage(dilated)
    with torch.no_grad():
        below = dilated.maps(torch.randn(1, 3, 48, 48))["layer3"]
        block = encoder.layer4[0]
        x = F.conv2d(below, block.conv1.weight, padding=2, dilation=2)
        x = block.relu(block.bn1(x))
        x = block.bn2(F.conv2d(x, block.conv2.weight, padding=2, dilation=2))
        beside = block.downsample[1](F.conv2d(below, block.downsample[0].weight))
        wanted = block.relu(x + beside)
        torch.testing.assert_close(dilated.layer4[0](below), wanted)


def test_the_encoder_is_copied_and_its_weights_stay_where_a_run_is_looked_for() -> None:
    encoder = make_encoder()
    model = Segmenter(encoder, 3, SegmenterShape())
    assert encoder.layer4[0].conv1.stride == (2, 2)
    state = model.state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(state[f"body.{name}"], tensor)
    assert (model.stride, make(dilated=False).stride) == (8, 16)


def test_the_head_of_an_fcn_is_mocos() -> None:
    first, *_ = layers = [
        layer for layer in Segmenter(make_encoder(), 5, SegmenterShape()).head if layer
    ]
    assert [type(layer).__name__ for layer in layers] == [
        *("Conv2d", "BatchNorm2d", "ReLU") * 2,
        "Conv2d",
    ]
    assert (first.out_channels, first.dilation, first.kernel_size) == (256, (6, 6), (3, 3))
    assert (layers[-1].out_channels, layers[-1].kernel_size) == (5, (1, 1))


@pytest.mark.parametrize("size", [(33, 49), (32, 40), (37, 61)])
def test_logits_have_the_size_of_the_image_whatever_it_is(size) -> None:
    model = make().eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_places_of_a_resnets_map_lie_on_their_pixels() -> None:
    """A map's place n is that of pixel n · stride: the logits there are not interpolated."""
    model = make(head="linear").eval()
    images = torch.rand(1, 3, 33, 41)
    with torch.no_grad():
        logits = model.head(model.body.maps(normalize(images))["layer4"])
        torch.testing.assert_close(model(images)[:, :, ::8, ::8], logits)
        # and so they are on an image whose last pixels are between
        cut = model(images[:, :, :30, :37])
    assert cut.shape == (1, 3, 30, 37)


def test_patches_of_a_vision_transformer_are_filled_up() -> None:
    pytest.importorskip("timm")
    model = make("vit-tiny8", head="linear").eval()
    images = torch.rand(1, 3, 20, 36)
    with torch.no_grad():
        padded = F.pad(normalize(images), (0, 4, 0, 4))
        logits = model.head(model.body.maps(padded)["tokens"])
        wanted = F.interpolate(logits, size=(24, 40), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images), wanted[:, :, :20, :36])


def test_any_cnn_is_segmented_with_on_the_map_that_it_has() -> None:
    model = make("torchvision:mobilenet_v3_small:features.8").eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_colours_split_in_two_are_dilated_in_both() -> None:
    assert make("lab:resnet18-small-half").stride == 8


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    model = make().train()
    images = torch.rand(2, 3, 24, 24)
    labels = torch.randint(0, 3, (2, 24, 24), dtype=torch.uint8)
    labels[0, :, 10:] = 255
    frozen = copy.deepcopy(model)
    loss = model(images, labels)["pixels"]
    logits = frozen(images)
    logarithms = torch.log_softmax(logits, 1)
    every = [
        -logarithms[n, int(labels[n, y, x]), y, x]
        for n in range(2)
        for y in range(24)
        for x in range(24)
        if labels[n, y, x] != 255
    ]
    torch.testing.assert_close(loss, torch.stack(every).mean())


def test_a_batch_without_a_pixel_that_counts_changes_nothing() -> None:
    model = make().train()
    labels = torch.full((2, 16, 16), 255, dtype=torch.uint8)
    loss = model(torch.rand(2, 3, 16, 16), labels)["pixels"]
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad is None) or not p.grad.any() for p in model.parameters())


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_statistics() -> None:
    model = make(head="linear").train()
    before = copy.deepcopy(model.body.state_dict())
    labels = torch.zeros(2, 16, 16, dtype=torch.uint8)
    model(torch.rand(2, 3, 16, 16), labels)["pixels"].backward()
    assert all(parameter.grad is None for parameter in model.body.parameters())
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    assert not model.body.training
    for name, tensor in model.body.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_unknown_encoders_are_told() -> None:
    with pytest.raises(CareError):
        make("resnet51")
