"""Encoders of our runs and files; what is refused."""

import argparse
import json
import os
import re
import pytest
import torch
from foreign_weights import TWINS, WANTED, assert_same, found, save_old, small_file
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models
from care import BYOL, ENCODERS, CareError, CStream, MomentumPair, build_encoder, resnet18
from care.train import checkpoint, load_encoder, weights

pytestmark = pytest.mark.usefixtures("skeletons_once")


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


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("torchvision:resnet18:layer3", {"fc.weight", "fc.bias"}),
        ("torchvision:mobilenet_v3_small:features.8", {"classifier.3.weight", "classifier.3.bias"}),
    ],
)
def test_the_file_of_any_cnn_has_the_names_of_its_model(tmp_path, name, missing):
    encoder = build_encoder(name).eval()
    weights.save_encoder(tmp_path / "encoder.safetensors", encoder, size=64)
    tensors = load_file(tmp_path / "encoder.safetensors")
    own = models.get_model(name.split(":")[1])
    result = own.load_state_dict(tensors, strict=False)
    assert (set(result.missing_keys), result.unexpected_keys) == (missing, [])
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert_same(loaded.state_dict(), encoder.state_dict())
    assert (loaded.name, loaded.size) == (name, 64)
    # as files were before: by the names of the module around the model
    note = {"care": json.dumps({"encoder": name, "size": 64})}
    save_file(encoder.state_dict(), tmp_path / "old.safetensors", note)
    assert_same(load_encoder(tmp_path / "old.safetensors").state_dict(), encoder.state_dict())
    tensors.popitem()
    save_file(tensors, tmp_path / "part.safetensors", note)
    with pytest.raises(CareError, match=r"part\.safetensors is of another architecture: 1 missing"):
        load_encoder(tmp_path / "part.safetensors")


def test_timm_loads_the_file_of_its_model_strictly(tmp_path):
    timm = pytest.importorskip("timm", reason="timm makes the model")
    encoder = build_encoder("timm:resnet10t:layer3").eval()
    path = tmp_path / "encoder.safetensors"
    weights.save_encoder(path, encoder, size=64)
    model = timm.create_model("resnet10t", num_classes=0, checkpoint_path=str(path)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), encoder(images).features)


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


# of encoders of four bands others have no files
@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.endswith("-rgbn")])
def test_the_architecture_is_inferred(tmp_path, capsys, name):
    with torch.device("meta"):
        own = (
            ENCODERS[name]().state_dict()
            if "-" in name
            else models.get_model(TWINS.get(name, name)).state_dict()
        )
    torch.save(state := small_file(own, 0.5), tmp_path / "a.pth")
    source = f"{tmp_path}/a.pth"
    if "small" in name or "cifar" in name:
        network = name.partition("-")[0]
        gray = "-gray" if name.endswith("-gray") else ""
        with pytest.raises(
            CareError, match=f"{network} with a 3×3 stem .*{network}-cifar{gray} of str"
        ):
            load_encoder(source)
        source += f":{name}"
    loaded = load_encoder(source)
    assert loaded.name == name
    assert_same(
        loaded.state_dict(),
        {key: value for key, value in state.items() if not key.startswith("fc.")},
    )
    assert f"a.pth: {name} under ''; passed over:" in capsys.readouterr().err
    assert loaded.assumed.startswith(f"{name} under ''")


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
            f"wanted one of {', '.join(ENCODERS)} under '' in FILE, {CLOSEST}1 missing "
            "(first: bn1.bias); give it whole",
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
            adding(conv1__weight=torch.zeros(64, 2, 7, 7)),
            f"{CLOSEST}1 of another shape (first: conv1.weight)",
        ),
        (
            lambda state: models.resnext50_32x4d().state_dict(),
            "from resnet50x2, the closest, by 16 of another shape (first: layer1.0.conv2.",
        ),
        (
            lambda state: models.squeezenet1_0().state_dict(),
            "wanted one ResNet by names of torchvision, transformers or detectron2 in FILE, got "
            "none; check the file",
        ),
        (lambda state: {"epoch": 3, "loss": [1.0]}, "got none"),
        (lambda state: [1, 2], "got none"),
        (lambda state: torch.zeros(3), "got none"),
        (pair("left.", "right."), "got ['left.', 'right.']; name one, as in FILE:left"),
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
            r"another architecture: \d+ missing .*1 unexpected \(first: fc\.weight\); "
            r"1 of another shape \(first: conv1\.weight\)",
        ),
    ],
)
def test_what_is_no_encoder_is_refused(tmp_path, source, message):
    with pytest.raises(CareError, match=message):
        load_encoder(source(tmp_path))


@pytest.mark.parametrize("name", ["resnet50", "torchvision:resnet18", "timm:regnety_002:s3"])
def test_a_name_of_a_network_is_no_source_and_says_what_is(name) -> None:
    with pytest.raises(CareError, match=f"supervised:{name} has ImageNet's weights"):
        load_encoder(name)


def test_a_file_of_an_encoder_without_a_name_says_that_nobody_can_build_it(tmp_path):
    nameless = build_encoder("resnet18-small-half")
    nameless.name = ""
    weights.save_encoder(tmp_path / "own.safetensors", nameless, size=32)
    for source in ("own.safetensors", "own.safetensors:resnet18"):
        with pytest.raises(CareError, match="without a name, which nothing here can build"):
            load_encoder(f"{tmp_path}/{source}")
