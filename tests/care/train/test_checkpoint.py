import errno
import json
import os
import resource
from contextlib import contextmanager
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from care import CareError, MomentumPair
from care.train import checkpoint
from shards import ShardError

NAMES = ["manifest.json", "model.safetensors", "optimizer.safetensors"]


class Trained:
    """A small model with a momentum pair and its optimizer, a few steps into training."""

    def __init__(self, seed=0, *, width=6, steps=3):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 2)
        )
        self.model = nn.ModuleDict({"c": MomentumPair(network)}).to(
            memory_format=torch.channels_last
        )
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True
        )
        for n in range(steps):
            self.step(n)

    def step(self, seed):
        images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        self.optimizer.zero_grad()
        loss = (
            self.model["c"].online(images) - self.model["c"].target(images)
        ).square().sum() + self.model["c"].online(images).sum()
        loss.backward()
        self.optimizer.step()
        self.model["c"].update(0.9)

    def save(self, run, step=3, **options):
        manifest = {"step": step, "settings": {"a": 1}, "scaler": {}}
        checkpoint.save(run, checkpoint.snapshot(self.model, self.optimizer), manifest, **options)

    def state(self):
        slots = {
            f"slot.{name}": self.optimizer.state[p]["momentum_buffer"]
            for name, p in self.model["c"].online.named_parameters()
        }
        return {**self.model.state_dict(), **slots}


def clones(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_same(state, others):
    assert state.keys() == others.keys()
    assert [name for name in state if not torch.equal(state[name], others[name])] == []


def steps_in(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def flip_a_bit(file, at=-1):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


# save and restore


def test_everything_comes_back_to_the_bit(tmp_path):
    trained = Trained()
    want = clones(trained.state())
    trained.save(tmp_path)
    other = Trained(seed=1, steps=1)
    found = checkpoint.latest(tmp_path)
    assert found.step == 3
    checkpoint.restore(found, other.model, other.optimizer)
    assert_same(other.state(), want)
    trained.step(99)
    other.step(99)
    assert_same(other.state(), clones(trained.state()))


def test_a_fresh_optimizer_gets_its_slots(tmp_path):
    trained = Trained()
    trained.save(tmp_path)
    fresh = Trained(seed=1, steps=0)
    checkpoint.restore(checkpoint.latest(tmp_path), fresh.model, fresh.optimizer)
    assert_same(fresh.state(), clones(trained.state()))


def test_tensors_stay_where_they_are_and_channels_last(tmp_path):
    trained = Trained()
    trained.save(tmp_path)
    other = Trained(seed=1)
    addresses = {name: tensor.data_ptr() for name, tensor in other.model.state_dict().items()}
    checkpoint.restore(checkpoint.latest(tmp_path), other.model, other.optimizer)
    assert {
        name: tensor.data_ptr() for name, tensor in other.model.state_dict().items()
    } == addresses
    weight = other.model["c"].online[0].weight
    for tensor in (
        weight,
        other.model["c"].target[0].weight,
        other.optimizer.state[weight]["momentum_buffer"],
    ):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_a_checkpoint_is_plain_safetensors_and_json(tmp_path):
    trained = Trained()
    trained.save(tmp_path)
    folder = tmp_path / "checkpoints" / "step-00000003"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert_same(load_file(folder / "model.safetensors"), trained.model.state_dict())
    slots = load_file(folder / "optimizer.safetensors")
    assert slots.keys() == {
        f"c.online.{name}" for name, _ in trained.model["c"].online.named_parameters()
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["step"], manifest["settings"], sorted(manifest["files"])) == (
        3,
        {"a": 1},
        NAMES[1:],
    )


# which checkpoints there are


def test_the_newest_two_are_kept(tmp_path):
    trained = Trained()
    for step in (2, 4, 6, 10):
        trained.save(tmp_path, step)
    assert steps_in(tmp_path) == ["step-00000006", "step-00000010"]
    trained.save(tmp_path, 11, keep=1)
    assert steps_in(tmp_path) == ["step-00000011"]
    assert checkpoint.latest(tmp_path).step == 11


def test_a_run_without_checkpoints_has_no_latest(tmp_path):
    assert checkpoint.latest(tmp_path / "nothing") is None
    (tmp_path / "checkpoints" / ".part-step-00000004").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-old").mkdir()
    assert checkpoint.latest(tmp_path) is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: flip_a_bit(folder / "model.safetensors"),
            "model.safetensors does not match the manifest",
        ),
        (
            lambda folder: flip_a_bit(folder / "optimizer.safetensors"),
            "optimizer.safetensors does not match the manifest",
        ),
        (
            lambda folder: os.truncate(folder / "model.safetensors", 100),
            "model.safetensors does not match the manifest",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "manifest.json").unlink(), "does not exist"),
        (lambda folder: os.truncate(folder / "manifest.json", 30), "cannot be read as JSON"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "schema"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 1}'), "files"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "list"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, capsys, damage, message):
    trained = Trained()
    trained.save(tmp_path, 2)
    trained.save(tmp_path, 4)
    damage(tmp_path / "checkpoints" / "step-00000004")
    assert checkpoint.latest(tmp_path).step == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert "passing over checkpoint" in said
    assert "step-00000004" in said
    assert message.replace(" ", "") in said.replace(" ", "")


def test_damaged_checkpoints_make_room_and_never_outlive_good_ones(tmp_path):
    trained = Trained()
    for step in (4, 6):
        trained.save(tmp_path, step)
        flip_a_bit(tmp_path / "checkpoints" / f"step-{step:08}" / "model.safetensors")
    assert checkpoint.latest(tmp_path) is None
    trained.save(tmp_path, 2)
    assert checkpoint.latest(tmp_path).step == 2
    trained.save(tmp_path, 4)
    assert checkpoint.latest(tmp_path).step == 4
    assert steps_in(tmp_path) == ["step-00000002", "step-00000004"]


def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(tmp_path):
    trained = Trained()
    for step in (3, 4, 5):
        trained.save(tmp_path, step, keep=3)
    flip_a_bit(tmp_path / "checkpoints" / "step-00000005" / "model.safetensors")
    trained.save(tmp_path, 6)
    assert steps_in(tmp_path) == ["step-00000004", "step-00000005", "step-00000006"]
    flip_a_bit(tmp_path / "checkpoints" / "step-00000006" / "model.safetensors")
    assert checkpoint.latest(tmp_path).step == 4


def test_nothing_is_read_of_checkpoints_that_are_known_to_be_intact_or_not(tmp_path, monkeypatch):
    trained = Trained()
    for step in (2, 4, 5):
        trained.save(tmp_path, step, keep=3)

    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr(checkpoint, "_verified_manifest", refuse)
    trained.save(tmp_path, 6, intact={4})
    assert steps_in(tmp_path) == ["step-00000004", "step-00000005", "step-00000006"]
    trained.save(tmp_path, 8, intact={4, 6})
    assert steps_in(tmp_path) == ["step-00000006", "step-00000008"]


def test_a_checkpoint_of_a_newer_version_is_refused_whatever_its_keys(tmp_path):
    trained = Trained()
    trained.save(tmp_path, 2)
    trained.save(tmp_path, 4)
    file = tmp_path / "checkpoints" / "step-00000004" / "manifest.json"
    file.write_text(json.dumps({"schema": 2, "digests": {}}))
    with pytest.raises(CareError, match=r"schema 2, this one reads 1\); upgrade care-ssl"):
        checkpoint.latest(tmp_path)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path):
    Trained().save(tmp_path)
    file = tmp_path / "checkpoints" / "step-00000003" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 99}))
    with pytest.raises(CareError, match=r"schema 99, this one reads 1\); upgrade care-ssl"):
        checkpoint.latest(tmp_path)


def test_a_checkpoint_of_another_architecture_names_the_keys(tmp_path):
    Trained().save(tmp_path)
    found = checkpoint.latest(tmp_path)
    wider, deeper, shallower = Trained(width=7), Trained(), Trained()
    deeper.model["c"].online.append(nn.Linear(2, 2))
    del shallower.model["c"].online[3]
    before = clones(wider.state())
    for other, message in (
        (
            wider,
            r"step-00000003 is of another architecture: \d+ of another shape "
            r"\(first: c\.online\.0\.bias, .*\); use the encoder",
        ),
        (deeper, r"2 missing \(first: c\.online\.4\.bias, c\.online\.4\.weight\)"),
        (shallower, r"2 unexpected \(first: c\.online\.3\.bias, c\.online\.3\.weight\)"),
    ):
        with pytest.raises(CareError, match=message):
            checkpoint.restore(found, other.model, other.optimizer)
    assert_same(wider.state(), before)


# a disk that refuses


@contextmanager
def largest_file(size):
    """Files cannot grow beyond ``size`` bytes: the kernel's own refusal, as of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_while_tensors_are_written_is_one_readable_error(tmp_path):
    trained = Trained()
    trained.save(tmp_path, 2)
    with (
        largest_file(1000),
        pytest.raises(ShardError, match=r"cannot write .*checkpoints.*File too large"),
    ):
        trained.save(tmp_path, 4)
    assert steps_in(tmp_path) == ["step-00000002"]
    assert checkpoint.latest(tmp_path).step == 2


def test_a_disk_that_fills_at_the_end_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trained = Trained()
    trained.save(tmp_path, 2)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardError, match=r"cannot write .*step-00000004.*No space left on device"):
        trained.save(tmp_path, 4)
    assert steps_in(tmp_path) == ["step-00000002"]
