"""Encoders that were trained with labels, by torchvision and timm."""

import re
from pathlib import Path
from urllib.error import URLError
import pytest
import timm
import torch
from foreign_weights import IMAGES, TWINS, found, small_file
from torch import nn
from torchvision import models
from care import ENCODERS, CareError, TappedEncoder
from care.train import load_encoder

pytestmark = pytest.mark.usefixtures("skeletons_once")


@pytest.fixture
def hub(tmp_path):
    """An empty cache of torch's."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def offline(*args, **options):
    raise URLError("no network")


def test_supervised_features_are_torchvision_s(network, features, hub, untouched_generator):
    torch.save(network.state_dict(), hub / "resnet18-f37072fd.pth")
    with untouched_generator():
        encoder, got = found("supervised:resnet18:layer4")
    assert torch.equal(got, features)
    assert (encoder.name, encoder.tap, encoder.size, encoder.training) == (
        "resnet18:layer4",
        "layer4",
        224,
        False,
    )


def fill(hub, model, *versions):
    """Weights in the cache, all of them the number of their version."""
    for number, version in enumerate(versions):
        with torch.device("meta"):
            state = models.get_model(model).state_dict()
        torch.save(
            small_file(state, number + 1.0),
            hub / models.get_model_weights(model)[version].url.rpartition("/")[2],
        )


@pytest.mark.parametrize("name", ["resnet50", "resnet50x2"])
def test_supervised_weights_are_the_first_ones(hub, name):
    fill(hub, TWINS.get(name, name), "IMAGENET1K_V1", "IMAGENET1K_V2")
    state = load_encoder(f"supervised:{name}").state_dict()
    assert state.keys() == ENCODERS[name]().state_dict().keys()
    assert all(bool((value == 1).all()) for value in state.values())


def test_a_supervised_network_of_torchvision_s_is_its_own(hub):
    torch.manual_seed(3)
    network = models.shufflenet_v2_x0_5().eval()
    torch.save(
        network.state_dict(),
        hub / models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url.rpartition("/")[2],
    )
    encoder, got = found("supervised:torchvision:shufflenet_v2_x0_5:stage3")
    network.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(got, network(IMAGES))
    assert isinstance(encoder, TappedEncoder)
    assert (encoder.name, encoder.training) == ("torchvision:shufflenet_v2_x0_5:stage3", False)


@pytest.fixture
def timm_pretrained(monkeypatch):
    """Timm's weights of a model are those of the seed 4, for pixels of a mean of ``cfg``."""
    create, cfg = timm.create_model, {}

    def pretend(model, *, pretrained=False):
        if pretrained:
            torch.manual_seed(4)
        network = create(model)
        network.pretrained_cfg |= cfg
        return network

    monkeypatch.setattr(timm, "create_model", pretend)
    return cfg


def test_a_supervised_network_of_timm_s_is_its_own(timm_pretrained):
    encoder, got = found("supervised:timm:regnety_002:s3")
    torch.manual_seed(4)
    network = timm.create_model("regnety_002").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            got, network.forward_head(network.forward_features(IMAGES), pre_logits=True)
        )
    assert encoder.name == "timm:regnety_002:s3"


def test_weights_for_other_pixels_are_refused(timm_pretrained):
    timm_pretrained["mean"] = (0.5, 0.5, 0.5)
    with pytest.raises(
        CareError,
        match=r"no ImageNet weights for 'timm:regnety_002:s3' \(timm's are for pixels of other",
    ):
        load_encoder("supervised:timm:regnety_002:s3")


def test_without_a_network_the_error_names_the_file_and_where_to_put_it(
    network, features, hub, monkeypatch
):
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        CareError,
        match=r"no ImageNet weights for 'resnet18' \(<urlopen error no network>\); wanted https://",
    ) as refused:
        load_encoder("supervised:resnet18")
    url, folder = re.search(r"wanted (\S+) in (\S+): put it there", str(refused.value)).groups()
    torch.save(network.state_dict(), Path(folder, url.rpartition("/")[2]))
    assert torch.equal(found("supervised:resnet18")[1], features)


def test_a_cached_file_of_something_else_is_an_error(hub):
    torch.save(models.resnet34().state_dict(), hub / "resnet18-f37072fd.pth")
    with pytest.raises(CareError, match=r"no ImageNet weights for 'resnet18' .*Unexpected key"):
        load_encoder("supervised:resnet18")


def test_timm_without_a_network_is_an_error(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda model, pretrained=False: offline() if pretrained else create(model),
    )
    with pytest.raises(
        CareError,
        match=r"for 'timm:resnet18:layer3' \(<urlopen error no network>\); wanted a name",
    ):
        load_encoder("supervised:timm:resnet18:layer3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18-small",
            r"no ImageNet weights for 'resnet18-small' \(Unknown model resnet18-small\); "
            "wanted a name that torchvision",
        ),
        ("timm:seresnet18:layer3", "No pretrained weights exist for seresnet18"),
        ("resnet19", "no encoder is called 'resnet19'; choose one of"),
        ("resnet18:layer9", "wanted a tap among"),
        ("torchvision:resnet18:layer9", "is no tap of this ResNet"),
    ],
)
def test_names_without_weights_are_refused(name, message):
    with pytest.raises(CareError, match=message):
        load_encoder(f"supervised:{name}")


def test_gray_encoders_have_no_weights_of_labels(hub):
    with pytest.raises(CareError, match=r"'resnet18-gray', whose images are gray; .*:resnet18"):
        load_encoder("supervised:resnet18-gray")
