"""The verbs of ``Run`` around a loop that is nobody's: a linear layer on made-up numbers."""

import json
import os
import signal
import pytest
import torch
from torch import nn
from care import CareError
from care.train import Machine, Run, Stopped, checkpoint
from care.train.rates import set_rate

STEPS = 5
SETTINGS = {"steps": STEPS, "batch_size": 4, "seed": 0}


def make_layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def numbers(start):
    """Steps and their batches, each a function of the step."""
    for step in range(start, STEPS):
        yield step, torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def train(path, layer, *, parts=1, during=lambda step: None, **more):
    """The loop of the documentation."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, momentum=0.9)

    def losses(x):
        return {"square": layer(x).square().mean(), "sum": layer(x).sum(1).mean()}

    with Run(path, layer, optimizer, SETTINGS, title="mine", precision="fp32", **more) as run:
        for step, x in run.through(numbers(run.start)):
            set_rate(optimizer, 0.1 / (step + 1))
            terms = run.take_step(step, losses, *[(part,) for part in x.chunk(parts)])
            during(step)
            run.record(step, terms, {"twice": 2 * step}, note=f"square {terms['square']:.3f}")
    return [json.loads(line) for line in run.log.read_text().splitlines()]


def plain_loop():
    """The same without a run."""
    layer = make_layer()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, momentum=0.9)
    totals = []
    for step, x in numbers(0):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        loss = layer(x).square().mean() + layer(x).sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(loss.item())
    return layer, totals


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loop_is_the_plain_one_and_its_numbers_are_logged(tmp_path, capsys, parts):
    layer = make_layer()
    lines = train(tmp_path, layer, parts=parts)
    reference, totals = plain_loop()
    torch.testing.assert_close(layer.weight, reference.weight)
    assert [line["total"] for line in lines] == pytest.approx(totals, rel=1e-5)
    for step, line in enumerate(lines):
        assert [*line] == ["step", "square", "sum", "total", "lr", "twice"]
        assert line["total"] == pytest.approx(line["square"] + line["sum"], rel=1e-6)
        assert (line["step"], line["lr"], line["twice"]) == (step, 0.1 / (step + 1), 2 * step)
    assert f"square {lines[-1]['square']:.3f} data_wait" in capsys.readouterr().err


def test_a_loop_that_is_stopped_goes_on_to_the_same_bits(tmp_path):
    finished, stopped, resumed = make_layer(), make_layer(), make_layer()
    lines = train(tmp_path / "finished", finished)
    stop = {1: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(Stopped, match="stopped on request after step 2 of 5"):
        train(tmp_path / "run", stopped, during=lambda step: stop.get(step, lambda: None)())
    with torch.no_grad():
        resumed.weight.zero_()  # what it starts from does not count
    assert train(tmp_path / "run", resumed) == lines
    assert torch.equal(resumed.weight, finished.weight)


def test_the_machine_decides_what_is_kept_and_no_result(tmp_path):
    lines = train(tmp_path / "usual", make_layer())
    machine = Machine("cpu", workers=0, checkpoint_every=1, keep_every=2)
    assert train(tmp_path / "often", make_layer(), machine=machine) == lines
    steps = checkpoint.steps_in(tmp_path / "often" / "checkpoints")
    assert sorted(steps) == [2, 4, 5]


def test_the_one_that_a_run_went_on_from_stays_until_two_newer_ones_are_written(tmp_path):
    stop = {2: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    often = Machine("cpu", workers=0, checkpoint_every=1)
    with pytest.raises(Stopped):
        train(
            tmp_path,
            make_layer(),
            machine=often,
            during=lambda step: stop.get(step, lambda: None)(),
        )
    folder = tmp_path / "checkpoints"
    assert sorted(checkpoint.steps_in(folder)) == [2, 3]
    os.truncate(folder / "step-00000003" / "model.safetensors", 10)
    train(tmp_path, make_layer(), machine=Machine("cpu", workers=0, checkpoint_every=5))
    assert sorted(checkpoint.steps_in(folder)) == [2, 3, 5]


def test_every_group_of_parameters_has_a_rate():
    layer = make_layer()
    optimizer = torch.optim.SGD([{"params": layer.weight}, {"params": layer.bias}], lr=0.0)
    set_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    set_rate(optimizer, 0.1, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match="longer"):
        set_rate(optimizer, 0.1, 0.2, 0.3)


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    layer = make_layer()
    with torch.no_grad():
        layer.bias.fill_(float("inf"))
    with pytest.raises(CareError, match="the square loss is inf at step 0; lower lr"):
        train(tmp_path, layer)
