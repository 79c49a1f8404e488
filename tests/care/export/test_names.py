"""Names go to other libraries and come back, those of every part of a ResNet."""

import pytest
import torch
from torchvision.models import get_model
from care.export.names import detectron2_name, transformers_name
from care.train.naming import DETECTRON2, TRANSFORMERS

CASES = [(transformers_name, TRANSFORMERS), (detectron2_name, DETECTRON2)]


def body(name):
    with torch.device("meta"):
        state = get_model(name).state_dict()
    return [key for key in state if not key.startswith("fc.")]


@pytest.mark.parametrize(("rename", "naming"), CASES)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_name_comes_back(rename, naming, name):
    names = body(name)
    assert [naming.rename(rename(part)) for part in names] == names
    assert len({rename(part) for part in names}) == len(names)


@pytest.mark.parametrize(("name", "depth"), [("resnet18", "basic"), ("resnet50", "bottleneck")])
def test_transformers_has_all_names_and_no_others(name, depth):
    transformers = pytest.importorskip("transformers", reason="care-ssl[hf] is not installed")
    layers = {"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[name]
    widths = [64, 128, 256, 512] if depth == "basic" else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(depths=layers, layer_type=depth, hidden_sizes=widths)
    with torch.device("meta"):
        expected = transformers.ResNetModel(config).state_dict().keys()
    assert {transformers_name(part) for part in body(name)} == set(expected)


def test_detectron2_names_are_those_of_its_model_zoo():
    assert detectron2_name("conv1.weight") == "stem.conv1.weight"
    assert detectron2_name("bn1.running_var") == "stem.conv1.norm.running_var"
    assert detectron2_name("layer1.0.conv3.weight") == "res2.0.conv3.weight"
    assert detectron2_name("layer4.2.bn1.bias") == "res5.2.conv1.norm.bias"
    assert detectron2_name("layer2.0.downsample.0.weight") == "res3.0.shortcut.weight"
    assert detectron2_name("layer2.0.downsample.1.weight") == "res3.0.shortcut.norm.weight"
