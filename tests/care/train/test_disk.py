"""Room for the checkpoints of a training."""

import shutil
from types import SimpleNamespace
import pytest
import torch
from small_runs import train
from torch import nn
from care import CareError
from care.train import Machine, checkpoint
from care.train.disk import check_room, checkpoint_bytes


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes are free on every disk."""

    def set_free(count):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))

    return set_free


def test_the_size_of_a_checkpoint_is_that_of_its_files(whole):
    newest = checkpoint.latest(whole)
    files = [newest.path / f"{name}.safetensors" for name in ("model", "optimizer")]
    momenta = newest.tensors("optimizer")
    model = nn.Module()
    for number, (name, tensor) in enumerate(newest.tensors("model").items()):
        if name in momenta:
            model.register_parameter(f"p{number}", nn.Parameter(tensor))
        else:
            model.register_buffer(f"b{number}", tensor)
    total = sum(file.stat().st_size for file in files)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    assert checkpoint_bytes(model, optimizer) == pytest.approx(total, rel=0.02)


@pytest.mark.parametrize(
    ("machine", "start", "steps", "there", "count"),
    [
        (Machine(checkpoint_every=10), 0, 100, 0, 3),
        (Machine(checkpoint_every=10), 0, 15, 0, 2),  # it saves twice
        (Machine(checkpoint_every=10), 0, 10, 0, 1),
        (Machine(checkpoint_every=10), 50, 100, 2, 1),  # the other two are replaced
        (Machine(checkpoint_every=10, keep_every=20), 0, 100, 0, 6),  # 5 stay, 2 of them the newest
        (Machine(checkpoint_every=10, keep_every=15), 0, 60, 0, 3),  # of 30 and 60 both are newest
        (Machine(checkpoint_every=10), 100, 100, 0, 0),
    ],
)
def test_a_disk_has_to_have_room_for_what_is_there_at_once(
    free, tmp_path, machine, start, steps, there, count
):
    model = nn.Linear(10, 10)
    for number in range(there):
        (tmp_path / "checkpoints" / f"step-{number + 1:08d}").mkdir(parents=True)
    size = 2 * 4 * 110
    assert checkpoint_bytes(model, torch.optim.SGD(model.parameters())) == size
    free(count * size)
    check_room(tmp_path, size, machine, start=start, steps=steps)
    if count:
        free(count * size - 1)
        with pytest.raises(CareError, match=f"wanted room for {count} checkpoints of 8.8e-07 GB"):
            check_room(tmp_path, size, machine, start=start, steps=steps)


def test_adam_keeps_two_slots_of_every_parameter():
    model = nn.Linear(10, 10)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight])
    assert checkpoint_bytes(model, optimizer) == 4 * 110 + 2 * 4 * 100


def test_a_full_disk_is_told_before_the_first_step(free, data, tmp_path):
    free(1000)
    with pytest.raises(CareError, match=r"got 1e-06 GB on its disk; free 0\.115 GB more"):
        train(data, tmp_path)
    assert not (tmp_path / "losses.jsonl").exists()
    assert not (tmp_path / "status.json").exists()


def test_a_gpu_that_is_not_there_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CareError, match="wanted the device cuda, got none that torch"):
        train(data, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()
