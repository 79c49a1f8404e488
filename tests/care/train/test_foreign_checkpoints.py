"""The steps by which a ResNet is found in other people's checkpoints, each by itself."""

import pytest
import torch
from care import CareError, resnet18
from care.train import foreign
from care.train.encoder_source import EncoderSource
from care.train.foreign import choose_branch, match_architecture, passed_over
from care.train.naming import POSITIONAL, TORCHVISION, find_branches, rename_branch
from care.train.weight_files import flat_tensors

FILE = EncoderSource("file.pth")

MOCO = [
    "module.queue",
    "module.encoder_q.conv1.weight",
    "module.encoder_q.layer1.0.conv1.weight",
    "module.encoder_q.fc.0.weight",
    "module.encoder_k.layer1.0.conv1.weight",
]


def test_every_network_is_found_by_its_first_block():
    assert find_branches(MOCO) == {
        "module.encoder_q.": TORCHVISION,
        "module.encoder_k.": TORCHVISION,
    }
    assert find_branches(["4.0.conv1.weight", "4.0.bn1.weight"]) == {"": POSITIONAL}
    assert find_branches(["layer1.0.conv2.weight", "blocks.0.conv1.weight"]) == {}


@pytest.mark.parametrize(
    ("prefixes", "chosen"),
    [
        (["module.encoder_q.", "module.encoder_k."], "module.encoder_q."),
        (["backbone.", "momentum_backbone."], "backbone."),
        (["module.student_encoder.", "module.teacher_encoder."], "module.student_encoder."),
        (["student.", "net."], "student."),
        (["key_encoder."], "key_encoder."),
    ],
)
def test_the_network_that_gradients_trained_is_chosen(prefixes, chosen):
    assert choose_branch(prefixes, FILE) == chosen


@pytest.mark.parametrize(
    ("branch", "chosen"),
    [
        ("teacher", "teacher.backbone."),
        ("teacher.backbone", "teacher.backbone."),
        ("momentum", "state_dict.momentum_backbone."),
        ("student", "student.module.backbone."),
        ("state_dict", "state_dict.backbone."),  # of which gradients trained one
        ("state_dict.m", "state_dict.momentum_backbone."),
    ],
)
def test_a_network_is_chosen_by_a_word_of_its_name_or_its_beginning(branch, chosen):
    prefixes = [
        "student.module.backbone.",
        "teacher.backbone.",
        "state_dict.backbone.",
        "state_dict.momentum_backbone.",
    ]
    assert choose_branch(prefixes, EncoderSource("file.pth", branch)) == chosen


@pytest.mark.parametrize(
    ("prefixes", "student"),
    [
        (["student.module.backbone.", "teacher.backbone."], "student"),
        (["student_backbone.", "teacher_backbone."], "student"),
        (["backbone.", "teacher.backbone."], "backbone"),
    ],
)
def test_beside_a_teacher_it_is_asked_which_is_wanted(prefixes, student):
    with pytest.raises(
        CareError, match=rf"say which: file\.pth:teacher, .* or file\.pth:{student}$"
    ):
        choose_branch(prefixes, FILE)
    assert choose_branch(prefixes, EncoderSource("file.pth", "teacher")) == prefixes[1]
    assert choose_branch(prefixes, EncoderSource("file.pth", student)) == prefixes[0]
    of_model = EncoderSource("file.pth", "", "timm:vit:blocks")
    with pytest.raises(CareError, match=r"file\.pth:teacher:timm:vit:blocks"):
        choose_branch(prefixes, of_model)


def test_a_name_that_no_network_has_is_an_error_with_those_that_there_are():
    message = r"wanted a network called 'ema' in file.pth, got \['student.', 'teacher.'\]"
    with pytest.raises(CareError, match=message):
        choose_branch(["teacher.", "student."], EncoderSource("file.pth", "ema"))


@pytest.mark.parametrize(("prefixes", "got"), [([], "none"), (["b.", "a."], r"\['a\.', 'b\.'\]")])
def test_names_that_leave_more_than_one_or_none_are_an_error(prefixes, got):
    message = (
        f"wanted one ResNet by names of .* in file.pth, got {got}; (check the|name one, as in)"
    )
    with pytest.raises(CareError, match=message):
        choose_branch(prefixes, FILE)


def test_a_branch_gets_torchvisions_names():
    names = rename_branch(MOCO, "module.encoder_q.", TORCHVISION)
    assert names == {key: key.removeprefix("module.encoder_q.") for key in MOCO[1:4]}
    keys = ["f.0.weight", "f.1.bias", "f.7.1.conv2.weight", "f.8.weight", "g.0.weight"]
    assert rename_branch(keys, "f.", POSITIONAL) == {
        "f.0.weight": "conv1.weight",
        "f.1.bias": "bn1.bias",
        "f.7.1.conv2.weight": "layer4.1.conv2.weight",
        "f.8.weight": "8.weight",
    }


def test_the_architecture_is_the_one_that_fits_or_the_closest(monkeypatch):
    small = {"resnet18": resnet18, "resnet18-small": lambda: resnet18(small=True)}
    monkeypatch.setattr(foreign, "ENCODERS", small)
    state = resnet18(small=True).state_dict()
    without_counters = {key: value for key, value in state.items() if "num_batches" not in key}
    match = match_architecture(without_counters)
    assert (match.encoder, match.misfit) == ("resnet18-small", (0, ""))
    assert match.tensors.keys() == state.keys()
    del without_counters["layer1.0.conv1.weight"]
    match = match_architecture(without_counters)
    assert match.encoder == "resnet18-small"
    assert match.misfit == (1, "1 missing (first: layer1.0.conv1.weight)")


def test_what_is_passed_over_is_named_by_its_network():
    used = {"module.encoder_q.conv1.weight", "module.encoder_q.layer1.0.conv1.weight"}
    others = [key for key in MOCO if key not in used]
    named = ["module.encoder_k", "module.encoder_q.fc", "module.queue"]
    assert passed_over(others, "module.encoder_q.") == named
    assert passed_over(["fc.weight", "fc.bias"], "") == ["fc"]


def test_tensors_are_collected_at_any_depth():
    weight = torch.zeros(1)
    nested = {"epoch": 3, "nets": [{"conv.weight": weight}, (weight, "text")]}
    assert list(flat_tensors(nested)) == ["nets.0.conv.weight", "nets.1.0"]
    assert list(flat_tensors(weight)) == [""]
