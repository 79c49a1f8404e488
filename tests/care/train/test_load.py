import argparse
import functools
import json
import os
import re
from pathlib import Path
from urllib.error import URLError
import fsspec
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from care import BYOL, ENCODERS, CareError, CStream, MomentumPair, TappedEncoder, mlp_head, resnet18
from care.train import checkpoint, foreign, load_encoder, weights

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WANTED = "wanted a run of `care pretrain`, a file of weights"
TWINS = {"resnet50x2": "wide_resnet50_2"}
ONCE = {name: functools.cache(build) for name, build in ENCODERS.items()}
"""For the skeletons that files are compared with."""


def assert_same(state, others):
    assert state.keys() == others.keys()
    assert [name for name in state if not torch.equal(state[name], others[name])] == []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(foreign, "ENCODERS", ONCE)


# ours


def make_encoder(seed=0):
    torch.manual_seed(seed)
    encoder = resnet18(small=True, half=True)
    encoder(torch.randn(4, 3, 32, 32))  # statistics other than the initial ones
    return encoder


def make_run(folder):
    c = CStream(MomentumPair(make_encoder()), BYOL(hidden=8))
    nn.init.zeros_(c.backbone.target.conv1.weight)  # the online one is kept
    optimizer = torch.optim.SGD(c.online_parameters(), lr=0.1, momentum=0.9)
    settings = {"encoder": "resnet18-small-half", "size": 48}
    checkpoint.save(
        folder,
        checkpoint.snapshot(nn.ModuleDict({"c": c}), optimizer),
        {"step": 1, "settings": settings},
    )
    return c.backbone.online


def test_an_encoder_comes_back_from_its_file(tmp_path, capsys):
    encoder = make_encoder().to(memory_format=torch.channels_last)
    weights.save_encoder(tmp_path / "encoder.safetensors", encoder, size=32)
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert_same(loaded.state_dict(), encoder.state_dict())
    assert (loaded.name, loaded.size, loaded.training) == ("resnet18-small-half", 32, False)
    assert capsys.readouterr().err == ""


def test_equal_encoders_make_equal_files(tmp_path):
    encoder = make_encoder()
    for n in range(8):
        weights.save_encoder(tmp_path / f"{n}.safetensors", encoder, size=32)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_an_encoder_comes_back_from_its_run(tmp_path):
    online = make_run(tmp_path)
    for source in (tmp_path, str(tmp_path)):
        loaded = load_encoder(source)
        assert_same(loaded.state_dict(), online.state_dict())
        assert (loaded.size, loaded.training) == (48, False)


def test_a_run_whose_checkpoints_are_all_damaged_has_no_encoder(tmp_path):
    make_run(tmp_path)
    os.truncate(tmp_path / "checkpoints" / "step-00000001" / "model.safetensors", 100)
    with pytest.raises(CareError, match="holds no checkpoint"):
        load_encoder(tmp_path)


def test_a_random_encoder_is_a_function_of_the_seed(untouched_generator):
    with untouched_generator():
        one, same, other = (
            load_encoder("random:resnet18-small-half", seed=seed) for seed in (5, 5, 6)
        )
    assert_same(one.state_dict(), same.state_dict())
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert not one.training
    torch.manual_seed(5)
    assert_same(one.state_dict(), resnet18(small=True, half=True).state_dict())


# others': each style is made of the modules that its code has, with a network to be found and others that must not be


@pytest.fixture(scope="module")
def network():
    """Torchvision's ResNet-18 as after some training."""
    torch.manual_seed(1)
    network = models.resnet18()
    for _ in range(3):
        network(torch.randn(4, 3, 64, 64) + 1)
    return network.eval()


@pytest.fixture(scope="module")
def features(network):
    with torch.no_grad():
        return nn.Sequential(*[*network.children()][:-1], nn.Flatten())(IMAGES)


def found(path):
    encoder = load_encoder(path)
    with torch.no_grad():
        return encoder, encoder(IMAGES).features


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
        "optimizer, state_dict.module.encoder_k, state_dict.module.encoder_q.fc, state_dict.module.queue, state_dict.module.queue_ptr",
    ),
    "MoCo v3": (
        moco_v3,
        "state_dict.module.base_encoder.",
        "state_dict.module.base_encoder.fc, state_dict.module.momentum_encoder, state_dict.module.predictor",
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
        "state_dict.backbone, state_dict.encoder_k, state_dict.encoder_q.0.fc, state_dict.encoder_q.1",
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
    encoder, got = found(tmp_path / "theirs.pth.tar")
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


def save_old(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


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


def small_file(state, value):
    """Weights of these shapes, all of them ``value``, that take no room in a file."""
    return {
        name: torch.tensor(value).to(tensor.dtype).expand(tensor.shape)
        for name, tensor in state.items()
    }


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


@pytest.mark.parametrize("name", ENCODERS)
def test_the_architecture_is_inferred(tmp_path, capsys, name):
    with torch.device("meta"):
        own = (
            ENCODERS[name]().state_dict()
            if "-" in name
            else models.get_model(TWINS.get(name, name)).state_dict()
        )
    torch.save(state := small_file(own, 0.5), tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth")
    assert loaded.name == name
    assert_same(
        loaded.state_dict(),
        {key: value for key, value in state.items() if not key.startswith("fc.")},
    )
    assert ("its 3×3 stem taken for one of stride 2" in capsys.readouterr().err) == (
        "small" in name
    )


def test_old_files_without_batch_counters_are_whole(network, features, tmp_path):
    torch.save(
        {key: value for key, value in network.state_dict().items() if "num_batches" not in key},
        tmp_path / "old.pth",
    )
    encoder, got = found(tmp_path / "old.pth")
    assert torch.equal(got, features)
    assert encoder.bn1.num_batches_tracked == 0


def test_half_precision_becomes_single(network, features, tmp_path):
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "half.pth")
    encoder, got = found(tmp_path / "half.pth")
    assert encoder.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(got, features, rtol=0.02, atol=0.02)


# what is refused


def lacking(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def adding(**extra):
    return lambda state: state | {name.replace("__", "."): value for name, value in extra.items()}


def pair(one, two, change=lambda state: state):
    def make(state):
        both = [
            ({f"{prefix}{name}": value for name, value in state.items()}) for prefix in (one, two)
        ]
        return change(both[0]) | both[1]

    return make


CLOSEST = "got one that differs from resnet18, the closest, by "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking("conv1.weight"), f"{CLOSEST}1 missing (first: conv1.weight)"),
        (lacking("layer4.0.conv1.weight"), f"{CLOSEST}1 missing (first: layer4.0.conv1.weight)"),
        (
            lacking("layer3.1.bn2.running_var"),
            f"{CLOSEST}1 missing (first: layer3.1.bn2.running_var)",
        ),
        (
            lacking("bn1.bias"),
            f"wanted one of {', '.join(ENCODERS)} under '' in FILE, {CLOSEST}1 missing (first: bn1.bias); give it whole",
        ),
        (
            adding(attnpool__weight=torch.zeros(3)),
            f"{CLOSEST}1 unexpected (first: attnpool.weight)",
        ),
        (
            adding(layer1__0__se__bias=torch.zeros(3)),
            f"{CLOSEST}1 unexpected (first: layer1.0.se.bias)",
        ),
        (
            adding(**{"0__weight": torch.zeros(64, 3, 7, 7)}),
            f"{CLOSEST}1 unexpected (first: 0.weight)",
        ),
        (
            adding(conv1__weight=torch.zeros(64, 1, 7, 7)),
            f"{CLOSEST}1 of another shape (first: conv1.weight)",
        ),
        (
            lambda state: models.resnet34().state_dict(),
            f"{CLOSEST}96 unexpected (first: layer1.2.bn1.bias, layer1.2.bn1.num_batches_tracked, layer1.2.bn1.running_mean)",
        ),
        (
            lambda state: models.resnext50_32x4d().state_dict(),
            "from resnet50x2, the closest, by 16 of another shape (first: layer1.0.conv2.",
        ),
        (
            lambda state: models.squeezenet1_0().state_dict(),
            "wanted one ResNet by torchvision's keys in FILE, got none; save its state dict",
        ),
        (lambda state: {"epoch": 3, "loss": [1.0]}, "got none"),
        (lambda state: [1, 2], "got none"),
        (lambda state: torch.zeros(3), "got none"),
        (pair("left.", "right."), "got ['left.', 'right.']; save its state dict as a file"),
        (pair("online.a.", "online.b."), "got ['online.a.', 'online.b.']"),
        # a damaged online network does not make room for its target
        (
            pair("online.", "target.", lacking("online.conv1.weight")),
            f"under 'online.' in FILE, {CLOSEST}1 missing (first: conv1.weight)",
        ),
    ],
)
def test_what_is_no_whole_encoder_is_refused(network, tmp_path, change, message):
    path = tmp_path / "a.pth"
    torch.save(change(network.state_dict()), path)
    with pytest.raises(CareError, match=re.escape(message.replace("FILE", str(path)))):
        load_encoder(path)


def test_a_file_that_needs_unpickling_is_refused_and_its_conversion_works(
    network, features, tmp_path, monkeypatch
):
    path = tmp_path / "a.pth"
    for save in (torch.save, save_old):
        save({"state_dict": network.state_dict(), "args": argparse.Namespace(lr=0.1)}, path)
        with pytest.raises(
            CareError,
            match=r"a\.pth holds argparse\.Namespace, and reading objects could run any code",
        ) as refused:
            load_encoder(path)
        monkeypatch.chdir(tmp_path)
        exec(re.search(r'python -c "(.*)"', str(refused.value))[1])
        assert torch.equal(found(tmp_path / "weights.pth")[1], features)
    torch.save(network, path)
    with pytest.raises(CareError, match=r"holds torchvision\.models\.resnet\.ResNet, and reading"):
        load_encoder(path)


def test_no_code_of_a_file_is_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for save in (torch.save, save_old):
        save({"state_dict": Payload()}, tmp_path / "a.pth")
        with pytest.raises(CareError, match=r"holds posix\.mkdir, and"):
            load_encoder(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def cut(path):
    torch.save({"a": torch.zeros(1000)}, path)
    os.truncate(path, 2000)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("write", "why"),
    [
        (
            lambda path: path.write_bytes(b"garbage" * 40),
            "Unsupported operand 103|header too large",
        ),
        (lambda path: path.write_bytes(b""), "empty|header too small"),
        (lambda path: path.write_text('{"a": [1, 2]}'), "Unsupported operand 123|header too large"),
        (cut, "failed finding central directory|header too large"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, suffix, write, why):
    path = tmp_path / f"x.{suffix}"
    write(path)
    with pytest.raises(
        CareError, match=rf"x\.{suffix} is no file of weights \(.*({why}).*\); {WANTED}"
    ) as refused:
        load_encoder(path)
    assert "\n" not in str(refused.value)


def foreign_file(folder):
    save_file(
        {"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)},
        folder / "x.safetensors",
        {"care": '{"encoder": "resnet18"}'},
    )
    return folder / "x.safetensors"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda folder: folder, f"holds no checkpoint; {WANTED}"),
        (lambda folder: folder / "missing", f"missing does not exist; {WANTED}"),
        (lambda folder: "random:resnet19", "no encoder is called 'resnet19'; choose one of"),
        (
            foreign_file,
            r"another architecture: \d+ missing .*1 unexpected \(first: fc\.weight\); 1 of another shape \(first: conv1\.weight\)",
        ),
    ],
)
def test_what_is_no_encoder_is_refused(tmp_path, source, message):
    with pytest.raises(CareError, match=message):
        load_encoder(source(tmp_path))


# trained with labels


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
        match=r"no ImageNet weights for 'timm:regnety_002:s3' \(timm's are for pixels of other means",
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
        match=r"no ImageNet weights for 'timm:resnet18:layer3' \(<urlopen error no network>\); wanted a name",
    ):
        load_encoder("supervised:timm:resnet18:layer3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18-small",
            r"no ImageNet weights for 'resnet18-small' \(Unknown model resnet18-small\); wanted a name that torchvision",
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
