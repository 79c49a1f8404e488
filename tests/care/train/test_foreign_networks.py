"""Networks of other people give the features that they have there, or are asked for by name."""

import pytest
import torch
from foreign_weights import IMAGES, found
from torch import nn
from torchvision import models
from care import CareError
from care.train import load_encoder
from care.train.encoder_source import EncoderSource, parse_source, with_branch

pytestmark = pytest.mark.usefixtures("skeletons_once")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def used(network):
    """The network with statistics of its own, in eval mode and without a classifier."""
    if hasattr(network, "fc"):
        network.fc = nn.Identity()
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + 0.3)
    return network.eval()


def cifar(build=models.resnet18, padding=1, stride=1):
    network = build()
    network.conv1 = nn.Conv2d(3, 64, 3, stride, padding, bias=False)
    network.maxpool = nn.Identity()
    return used(network)


def features_of(network, images=IMAGES):
    with torch.no_grad():
        return network(images)


def under(prefix, network):
    return {f"{prefix}{name}": value for name, value in network.state_dict().items()}


# stems


@pytest.mark.parametrize(
    ("build", "stem", "padding", "stride"),
    [
        (models.resnet18, "cifar", 1, 1),
        (models.resnet18, "cifar-pad2", 2, 1),
        (models.resnet34, "small", 1, 2),
        (models.resnet50, "cifar", 1, 1),
    ],
)
def test_a_3x3_stem_is_asked_for_and_then_gives_its_features(
    tmp_path, build, stem, padding, stride
):
    network = cifar(build, padding, stride)
    file = tmp_path / "theirs.ckpt"
    torch.save({"state_dict": under("backbone.", network)}, file)
    name = build.__name__
    with pytest.raises(CareError, match="weights do not tell the stride; say which it is") as error:
        load_encoder(file)
    assert f"{file}:{name}-{stem} of stride {stride}" in str(error.value)
    images = IMAGES[:2, :, :32, :32]
    encoder = load_encoder(f"{file}:{name}-{stem}")
    torch.testing.assert_close(
        encoder(images).features.detach(), features_of(network, images), **CLOSE
    )
    assert encoder.name == f"{name}-{stem}"
    assert encoder.assumed.startswith(f"{name}-{stem} under 'state_dict.backbone.', as it was ask")


def test_another_name_than_the_shapes_is_refused(tmp_path):
    torch.save(cifar().state_dict(), tmp_path / "a.pth")
    for name, differing in (
        ("resnet18", "1 of another shape"),
        ("resnet50-cifar", r"\d+ missing"),
        ("resnet18-cifar-half", "of another shape"),
    ):
        with pytest.raises(CareError, match=f"wanted {name} under .*{differing}"):
            load_encoder(f"{tmp_path}/a.pth:{name}")
    with pytest.raises(CareError, match="no encoder is called 'resnet19'"):
        load_encoder(f"{tmp_path}/a.pth::resnet19")


# which network


def test_the_teacher_is_had_by_its_name_and_alone_for_the_asking(tmp_path):
    student, teacher = used(models.resnet18()), cifar()
    file = tmp_path / "dino.pth"
    content = {
        "student": under("module.backbone.", student),
        "teacher": under("backbone.", teacher),
    }
    torch.save(content, file)
    with pytest.raises(CareError, match=r"dino\.pth:teacher, .* or .*dino\.pth:student$"):
        load_encoder(file)
    assert torch.equal(found(f"{file}:student")[1], features_of(student))
    with pytest.raises(CareError, match=r"dino\.pth:teacher:resnet18-cifar of stride 1"):
        load_encoder(f"{file}:teacher")
    encoder, features = found(f"{file}:teacher:resnet18-cifar")
    torch.testing.assert_close(features, features_of(teacher), **CLOSE)
    assert "under 'teacher.backbone.'" in encoder.assumed


@pytest.mark.parametrize(
    ("source", "other"),
    [("a.pth", "a.pth:ema"), ("a.pth:resnet18-cifar", "a.pth:ema:resnet18-cifar")],
)
def test_a_key_names_the_network_of_a_file_that_does_not_itself(tmp_path, source, other):
    (tmp_path / "a.pth").touch()
    assert with_branch(f"{tmp_path}/{source}", "ema") == f"{tmp_path}/{other}"
    with pytest.raises(CareError, match=r"a\.pth:q names its network itself, got 'ema' as well"):
        with_branch(f"{tmp_path}/a.pth:q", "ema")


def test_a_tap_may_be_named_with_the_architecture(tmp_path):
    network = used(models.resnet34())
    torch.save(network.state_dict(), tmp_path / "a.pth")
    encoder, features = found(f"{tmp_path}/a.pth:resnet34:layer2")
    assert (encoder.name, encoder.tap) == ("resnet34:layer2", "layer2")
    torch.testing.assert_close(features, features_of(network), **CLOSE)


# other libraries' names


def detectron(network):
    """detectron2's names, as its converter of torchvision's weights gives them."""
    state = {}
    for name, value in network.state_dict().items():
        if "num_batches" in name:
            continue
        theirs = name
        for old, new in (
            *((f"layer{n}", f"res{n + 1}") for n in (4, 3, 2, 1)),
            *((f"bn{n}", f"conv{n}.norm") for n in (1, 2, 3)),
            ("downsample.0", "shortcut"),
            ("downsample.1", "shortcut.norm"),
        ):
            theirs = theirs.replace(old, new)
        state[theirs if theirs.startswith("res") else f"stem.{theirs}"] = value
    return state


def test_detectron2s_names_are_asked_for_where_the_stride_is(tmp_path):
    network = used(models.resnet50())
    state = {f"backbone.bottom_up.{name}": value for name, value in detectron(network).items()}
    assert "backbone.bottom_up.res3.0.shortcut.norm.running_var" in state
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(CareError, match=r"a\.pth:resnet50 if it is on the 3×3 convolution"):
        load_encoder(tmp_path / "a.pth")
    torch.testing.assert_close(
        found(f"{tmp_path}/a.pth:resnet50")[1], features_of(network), **CLOSE
    )
    network = used(models.resnet18())
    torch.save({"model": detectron(network)}, tmp_path / "b.pth")  # no bottlenecks
    torch.testing.assert_close(found(tmp_path / "b.pth")[1], features_of(network), **CLOSE)


@pytest.mark.parametrize(
    ("layer_type", "depths"), [("basic", (2, 2, 2, 2)), ("bottleneck", (3, 4, 6, 3))]
)
def test_transformers_files_give_transformers_features(tmp_path, layer_type, depths):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    widths = (64, 128, 256, 512) if layer_type == "basic" else (256, 512, 1024, 2048)
    config = transformers.ResNetConfig(
        layer_type=layer_type, depths=list(depths), hidden_sizes=list(widths)
    )
    network = used(transformers.ResNetForImageClassification(config))
    network.save_pretrained(tmp_path / "hf")
    with torch.no_grad():
        wanted = network.resnet(IMAGES).pooler_output.flatten(1)
    encoder, features = found(tmp_path / "hf" / "model.safetensors")
    torch.testing.assert_close(features, wanted, **CLOSE)
    assert "by its names and shapes" in encoder.assumed


def test_lightlys_own_resnet_is_refused(tmp_path):
    lightly = pytest.importorskip("lightly.models", reason="lightly is not installed")
    torch.save(lightly.ResNetGenerator("resnet-18").state_dict(), tmp_path / "a.pth")
    with pytest.raises(CareError, match=r"wanted one of|weights do not tell"):
        load_encoder(tmp_path / "a.pth")


# other networks


@pytest.mark.parametrize(
    ("model", "tap", "head"),
    [
        ("regnet_y_400mf", "trunk_output.block3", "fc"),
        ("convnext_tiny", "features.5", "classifier.2"),
    ],
)
def test_any_model_by_its_name_gives_its_features(tmp_path, capsys, model, tap, head):
    network = used(models.get_model(model))
    network.set_submodule(head, nn.Identity())
    other = models.get_model(model)
    content = {"model_ema": under("module.", other), "model": under("module.", network)}
    content["model"][f"module.{head}.weight"] = torch.zeros(3, 3)
    torch.save(content, tmp_path / "a.pth")
    _, features = found(f"{tmp_path}/a.pth:torchvision:{model}:{tap}")
    torch.testing.assert_close(features, features_of(network), **CLOSE)
    said = capsys.readouterr().err
    assert f"torchvision:{model}:{tap} under 'model.module.'; passed over: model.module." in said
    other_features = found(f"{tmp_path}/a.pth:ema:torchvision:{model}:{tap}")[1]
    assert not torch.allclose(other_features, features)
    with pytest.raises(CareError, match=r"wanted one torchvision:resnet18:layer3 in .*, got none"):
        load_encoder(f"{tmp_path}/a.pth:torchvision:resnet18:layer3")


# what is asked for


def test_a_source_is_a_place_a_network_and_an_architecture(tmp_path):
    file = tmp_path / "a:b.pth"
    file.touch()
    place = str(file)
    for text, parts in (
        ("", ("", "")),
        (":teacher", ("teacher", "")),
        (":resnet18-cifar", ("", "resnet18-cifar")),
        (":resnet50:layer4", ("", "resnet50:layer4")),
        (":teacher:resnet50:layer4", ("teacher", "resnet50:layer4")),
        (":torchvision:convnext_tiny:features.5", ("", "torchvision:convnext_tiny:features.5")),
        (":lab:resnet18-small-half", ("", "lab:resnet18-small-half")),
        (":target:ydbdr:resnet50:layer4", ("target", "ydbdr:resnet50:layer4")),
        (":model.ema:timm:resnet18:layer3", ("model.ema", "timm:resnet18:layer3")),
    ):
        source = parse_source(f"{place}{text}")
        assert source == EncoderSource(place, *parts)
        assert source.with_architecture(source.architecture) == f"{place}{text}"
    assert parse_source(tmp_path / "none:teacher") == EncoderSource(f"{tmp_path}/none:teacher")
    assert parse_source("memory://none/a:teacher").place == "memory://none/a:teacher"
