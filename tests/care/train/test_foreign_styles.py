"""A network is found in other people's checkpoints.

Each style is made of the modules that its code has, with a network to be found and others that must
not be.
"""

import json
from pathlib import Path
import fsspec
import pytest
import timm
import torch
from foreign_weights import IMAGES, assert_same, found, save_old, small_file
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from care import mlp_head
from care.train import load_encoder

pytestmark = pytest.mark.usefixtures("skeletons_once")


def tree(**modules):
    """The state dict of a module with these children and buffers."""
    root = nn.Module()
    for name, value in modules.items():
        root.register_buffer(name, value) if isinstance(value, torch.Tensor) else root.add_module(
            name, value
        )
    return root.state_dict()


def parallel(state):
    return {f"module.{name}": value for name, value in state.items()}


def with_head(network, head):
    other = models.resnet18()
    other.load_state_dict(network.state_dict())
    other.fc = head
    return other


def node(**modules):
    return nn.ModuleDict(modules)


def trained(network):
    """What a training script saves beside the weights."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(IMAGES).sum().backward()
    optimizer.step()
    return {
        "epoch": 7,
        "arch": "resnet18",
        "best_acc": 61.5,
        "optimizer": optimizer.state_dict(),
        "lrs": [0.1, 0.01],
    }


def moco_v2(network, other):
    q, k = (
        with_head(network, mlp_head(512, hidden=512)),
        with_head(other, mlp_head(512, hidden=512)),
    )
    state = parallel(
        tree(encoder_q=q, encoder_k=k, queue=torch.zeros(8, 4), queue_ptr=torch.zeros(1))
    )
    return {"state_dict": state, **trained(other)}


def moco_v3(network, other):
    base, momentum = (
        with_head(network, mlp_head(512, norm=True)),
        with_head(other, mlp_head(512, norm=True)),
    )
    return {
        "state_dict": parallel(
            tree(base_encoder=base, momentum_encoder=momentum, predictor=mlp_head(256))
        )
    }


def sequential(network, other):
    one, two = (nn.Sequential(*[*net.children()][:-1]) for net in (network, other))
    return {"state_dict": tree(backbone=one, projection_head=mlp_head(512), backbone_momentum=two)}


def lucidrains(network, other):
    return tree(
        net=network,
        online_encoder=node(net=network, projector=mlp_head(512)),
        target_encoder=node(net=other),
    )


def openselfsup(network, other):
    one, two = nn.Sequential(network, mlp_head(512)), nn.Sequential(other, mlp_head(512))
    return {"meta": {"epoch": 1}, "state_dict": tree(encoder_q=one, encoder_k=two, backbone=one[0])}


def dino(network, other):
    student, teacher = (
        parallel(tree(backbone=net, head=mlp_head(512))) for net in (network, other)
    )
    return {
        "student": student,
        "teacher": teacher,
        "dino_loss": {"center": torch.zeros(1, 4)},
        "epoch": 1,
    }


def swav(network, other):
    trunk = tree(
        **dict(network.named_children())
        | {"projection_head": mlp_head(512), "prototypes": nn.Linear(256, 8)}
    )
    return {
        "state_dict": parallel(
            {name: value for name, value in trunk.items() if not name.startswith("fc.")}
        )
    }


STYLES = {
    "torchvision": (lambda net, other: net.state_dict(), "", "fc"),
    "without head": (
        lambda net, other: {k: v for k, v in net.state_dict().items() if "fc" not in k},
        "",
        "nothing",
    ),
    "state_dict": (
        lambda net, other: {"state_dict": net.state_dict(), **trained(other)},
        "state_dict.",
        "optimizer, state_dict.fc",
    ),
    "model": (
        lambda net, other: {"model": parallel(net.state_dict())},
        "model.module.",
        "model.module.fc",
    ),
    "model_state_dict": (
        lambda net, other: {"model_state_dict": net.state_dict()},
        "model_state_dict.",
        "model_state_dict.fc",
    ),
    "exponential average": (
        lambda net, other: {"state_dict": net.state_dict(), "state_dict_ema": other.state_dict()},
        "state_dict.",
        "state_dict.fc, state_dict_ema",
    ),
    "MoCo v2": (
        moco_v2,
        "state_dict.module.encoder_q.",
        "optimizer, state_dict.module.encoder_k, state_dict.module.encoder_q.fc, "
        "state_dict.module.queue, state_dict.module.queue_ptr",
    ),
    "MoCo v3": (
        moco_v3,
        "state_dict.module.base_encoder.",
        "state_dict.module.base_encoder.fc, state_dict.module.momentum_encoder, "
        "state_dict.module.predictor",
    ),
    "SimSiam": (
        lambda net, other: {"state_dict": parallel(tree(encoder=net, predictor=mlp_head(512)))},
        "state_dict.module.encoder.",
        "state_dict.module.encoder.fc, state_dict.module.predictor",
    ),
    "BYOL": (
        lambda net, other: tree(
            online_network=node(encoder=net, projection=mlp_head(512)),
            target_network=node(encoder=other),
        ),
        "online_network.encoder.",
        "online_network.encoder.fc, online_network.projection, target_network",
    ),
    "BYOL, only the target": (
        lambda net, other: tree(target_encoder=net),
        "target_encoder.",
        "target_encoder.fc",
    ),
    "lucidrains": (
        lucidrains,
        "online_encoder.net.",
        "net, online_encoder.net.fc, online_encoder.projector, target_encoder",
    ),
    "OpenSelfSup": (
        openselfsup,
        "state_dict.encoder_q.0.",
        "state_dict.backbone, state_dict.encoder_k, state_dict.encoder_q.0.fc, "
        "state_dict.encoder_q.1",
    ),
    "solo-learn": (
        lambda net, other: {
            "state_dict": tree(backbone=net, classifier=nn.Linear(512, 2), momentum_backbone=other)
        },
        "state_dict.backbone.",
        "state_dict.backbone.fc, state_dict.classifier, state_dict.momentum_backbone",
    ),
    "numbered": (
        sequential,
        "state_dict.backbone.",
        "state_dict.backbone_momentum, state_dict.projection_head",
    ),
    "Barlow Twins": (
        lambda net, other: {
            "model": parallel(tree(backbone=net, projector=mlp_head(512), bn=nn.BatchNorm1d(4)))
        },
        "model.module.backbone.",
        "model.module.backbone.fc, model.module.bn, model.module.projector",
    ),
    "SwAV": (
        swav,
        "state_dict.module.",
        "state_dict.module.projection_head, state_dict.module.prototypes",
    ),
    "DINO": (
        dino,
        "student.module.backbone.",
        "dino_loss, student.module.backbone.fc, student.module.head, teacher",
    ),
    "VISSL": (
        lambda net, other: {
            "base": {
                "model": {"trunk": tree(_feature_blocks=net), "heads": tree(a=nn.Linear(2, 2))}
            }
        },
        "base.model.trunk._feature_blocks.",
        "base.model.heads, base.model.trunk._feature_blocks.fc",
    ),
    "Lightning": (
        lambda net, other: {
            "state_dict": tree(model=net),
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [trained(other)["optimizer"]],
        },
        "state_dict.model.",
        "optimizer_states, state_dict.model.fc",
    ),
}
"""How to save it, the prefix that is found, what is passed over."""


@pytest.mark.parametrize("style", STYLES)
def test_the_network_is_found_in_every_style(network, features, tmp_path, capsys, style):
    save, prefix, over = STYLES[style]
    torch.save(save(network, models.resnet18()), tmp_path / "theirs.pth.tar")
    branch = ":student" if style == "DINO" else ""
    encoder, got = found(f"{tmp_path}/theirs.pth.tar{branch}")
    assert torch.equal(got, features)
    assert_same(
        encoder.state_dict(),
        {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")},
    )
    assert (encoder.name, encoder.size, encoder.training) == ("resnet18", 224, False)
    assert (
        capsys.readouterr().err
        == f"{tmp_path}/theirs.pth.tar: resnet18 under {prefix!r}; passed over: {over}\n"
    )


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.pt", torch.save),
        ("a.ckpt", torch.save),
        ("a.tar", save_old),
        ("a.safetensors", save_file),
        ("a", torch.save),
    ],
)
def test_the_file_may_be_of_any_kind(network, features, tmp_path, name, save):
    save(network.state_dict(), tmp_path / name)
    assert torch.equal(found(tmp_path / name)[1], features)


def test_the_file_may_be_in_an_object_store(network, features, tmp_path):
    torch.save(network.state_dict(), tmp_path / "a.pth")
    fsspec.filesystem("memory").pipe_file("/bucket/a.pth", (tmp_path / "a.pth").read_bytes())
    assert torch.equal(found("memory://bucket/a.pth")[1], features)
    fsspec.filesystem("memory").store.clear()


def test_timm_s_weights_give_timm_s_features(tmp_path):
    network = timm.create_model("resnet18").eval()
    torch.save(network.state_dict(), tmp_path / "timm.pth")
    with torch.no_grad():
        torch.testing.assert_close(
            found(tmp_path / "timm.pth")[1], network.global_pool(network.forward_features(IMAGES))
        )


def test_the_authors_checkpoint_gives_its_student(tmp_path, capsys):
    keys = json.loads(
        (Path(__file__).parents[2] / "golden" / "official_resnet50.json").read_text()
    )["keys"]
    state = {name: torch.zeros(shape, device="meta") for name, shape in keys.items()}
    both = {f"student_encoder.{name}": value for name, value in small_file(state, 2.0).items()}
    both |= {f"teacher_encoder.{name}": value for name, value in small_file(state, 3.0).items()}
    torch.save({"state_dict": parallel(both), "epoch": 200}, tmp_path / "care.pth.tar")
    loaded = load_encoder(tmp_path / "care.pth.tar")
    assert loaded.name == "resnet50"
    assert all(bool((value == 2).all()) for value in loaded.state_dict().values())
    student = "state_dict.module.student_encoder."
    over = f"{student}fc1, {student}fc2, {student}trans, state_dict.module.teacher_encoder"
    assert (
        f"care.pth.tar: resnet50 under {student!r}; passed over: {over}" in capsys.readouterr().err
    )
