"""Other people's encoders see their pixels as they were trained on, whatever evaluations show."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize as torchvision_normalize
from care import CareError, build_encoder
from care.encoded import InputNormalisation
from care.train import load_encoder
from care.train.load import is_foreign
from care.train.photometrics import normalize
from care.train.weights import digest_of, save_encoder

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def theirs(file):
    network = models.resnet18()
    network.load_state_dict(torch.load(file))
    network.fc = nn.Identity()
    with torch.no_grad():
        return network.eval()(torchvision_normalize(PIXELS, MEAN, STD))


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18:layer3"])
def test_features_are_theirs_of_their_pixels(file, name):
    encoder = load_encoder(f"{file}:{name}", mean=MEAN, std=STD)
    with torch.no_grad():
        got = encoder(normalize(PIXELS)).features
    torch.testing.assert_close(got, theirs(file), rtol=1e-5, atol=1e-5)
    assert encoder.assumed.endswith(
        "input normalised by mean 0.5,0.4,0.3 and deviation 0.5,0.25,0.2"
    )
    usual = load_encoder(f"{file}:{name}")
    assert usual.assumed.endswith("input normalised by ImageNet's mean and deviation")
    assert digest_of(usual) != digest_of(encoder)
    assert usual.state_dict().keys() < encoder.state_dict().keys()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, None, "give both or none"),
        ((0.5,), (0.5,), "three channels of RGB"),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "divide those of 0 to 255 by 255"),
        (MEAN, (0.5, 0.5, 0.0), "0.5,0.5,0"),
    ],
)
def test_other_numbers_are_refused(file, mean, std, message):
    with pytest.raises(CareError, match=message):
        load_encoder(file, mean=mean, std=std)


def test_what_was_trained_here_has_its_own(tmp_path, file):
    save_encoder(tmp_path / "ours.safetensors", build_encoder("resnet18-small-half"), size=48)
    with pytest.raises(CareError, match="was trained here"):
        load_encoder(tmp_path / "ours.safetensors", mean=MEAN, std=STD)
    with pytest.raises(CareError, match="give none"):
        load_encoder("random:resnet18-small-half", mean=MEAN, std=STD)
    sources = ["random:resnet18", tmp_path / "ours.safetensors", file]
    assert [is_foreign(source) for source in sources] == [False, False, True]


def test_unset_the_step_changes_nothing():
    assert torch.equal(InputNormalisation()(PIXELS), PIXELS)
