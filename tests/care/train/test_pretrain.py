"""What a run leaves, and that every step of it is the README's."""

import json
import shutil
from importlib import import_module
import pytest
import torch
from flat import gathered
from safetensors.torch import load_file
from small_runs import SETTINGS, SIZE, STEPS, crash, make_streams, result, rows, saved, train
from torch import nn
from care import (
    BYOL,
    CareError,
    CStream,
    MomentumPair,
    Transformer,
    TStream,
    care_loss,
    lr_at,
    momentum_at,
    resnet18,
)
from care.encoded import Encoded
from care.train import TimedProbe, batches, checkpoint, load_encoder, pretrain

module = import_module("care.train.pretrain")


def test_a_run_leaves_its_losses_its_encoder_and_two_checkpoints(whole, data, tmp_path):
    done = train(data, tmp_path)
    assert result(tmp_path) == result(whole)
    assert saved(tmp_path) == ["step-00000004", "step-00000006"]
    assert done.encoder == tmp_path / "encoder.safetensors"
    assert done.steps == STEPS
    lines = rows(tmp_path)
    assert [row["step"] for row in lines] == list(range(STEPS))
    assert [row["lr"] for row in lines] == [
        lr_at(k, total=STEPS, base=0.05 * 8 / 256, warmup=2) for k in range(STEPS)
    ]
    for row in lines:
        assert row["total"] == pytest.approx(
            row["cnn"] + row["transformer"] + 100 * row["attention"], rel=1e-5
        )
    assert done.losses == {
        name: lines[-1][name] for name in ("total", "cnn", "transformer", "attention", "spread")
    }
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == list(range(STEPS))


def test_a_finished_run_returns_at_once(whole, data, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(module, "set_rates", crash)  # there is no step to do
    assert train(data, run).steps == STEPS
    assert result(run) == result(whole)


def test_the_encoder_can_be_loaded_from_the_run_and_from_its_file(whole):
    from_run, from_file = load_encoder(whole), load_encoder(whole / "encoder.safetensors")
    assert all(
        torch.equal(value, from_file.state_dict()[key])
        for key, value in from_run.state_dict().items()
    )
    assert (from_run.size, from_file.size) == (SIZE, SIZE)


def test_the_size_is_recorded_for_streams_that_were_composed_by_hand(data, tmp_path):
    torch.manual_seed(0)
    c = CStream(MomentumPair(resnet18(small=True, half=True)), BYOL(hidden=16))
    done = pretrain(data, tmp_path, c, **gathered(SETTINGS | {"steps": 1}))
    assert load_encoder(done.encoder).size == load_encoder(tmp_path).size == SIZE


class Tiny(nn.Module):
    """A CNN that no table knows."""

    features = 16

    def __init__(self):
        super().__init__()
        self.tap, self.last = nn.Conv2d(3, 8, 3, 8, 1), nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, images):
        tapped = self.tap(images).relu()
        return Encoded(tapped, self.last(tapped).mean((2, 3)))


def test_any_cnn_with_a_tap_can_be_trained(data, tmp_path):
    torch.manual_seed(0)
    c, t = (
        CStream(MomentumPair(Tiny()), BYOL(hidden=16)),
        TStream(MomentumPair(Transformer(8, 16, map_size=(4, 4), blocks=1)), BYOL(hidden=16)),
    )
    done = pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 2}))
    weights = load_file(done.encoder)
    assert weights.keys() == c.backbone.online.state_dict().keys()
    assert all(
        torch.equal(value, weights[key]) for key, value in c.backbone.online.state_dict().items()
    )
    with pytest.raises(
        CareError, match="without a name, which nothing here can build"
    ):  # only those in the table can be rebuilt
        load_encoder(done.encoder)


def plain_loop(data, c, t, *, lr=0.05, weight_decay=1e-4, momentum=0.99):
    """As a reader of the README would write it; float32, no memory format, no fused update."""
    parameters = [*c.online_parameters(), *(t.online_parameters() if t else [])]
    opt = torch.optim.SGD(
        parameters, lr=0.05, momentum=0.9, weight_decay=weight_decay, foreach=False
    )
    losses = []
    for step, (x1, x2) in batches(data, size=SIZE, batch_size=8, steps=STEPS, seed=0):
        opt.param_groups[0]["lr"] = lr_at(step, total=STEPS, base=lr * 8 / 256, warmup=2)
        kind = next(c.parameters()).dtype
        c_out = c(x1.to(kind), x2.to(kind))
        loss = care_loss(c_out, t(c_out.maps) if t else None, attention_weight=100)
        loss.total.backward()
        opt.step()
        opt.zero_grad()
        m = momentum_at(step + 1, total=STEPS, base=momentum)
        for pair in [s_pair for s in (c, t) if s for s_pair in (s.backbone, s.projector)]:
            with torch.no_grad():
                for target, online in zip(
                    pair.target.parameters(), pair.online.parameters(), strict=True
                ):
                    target.copy_(m * target + (1 - m) * online)
        losses.append([term.item() for term in loss])
    return losses


def test_every_step_is_that_of_the_plain_loop(whole, data):
    c, t = make_streams()
    assert_same_run(whole, plain_loop(data, c, t), {"c": c, "t": t})


def assert_same_run(run, losses, streams):
    got = [
        [row[name] for name in ("total", "cnn", "transformer", "attention")] for row in rows(run)
    ]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(losses), rtol=1e-4, atol=1e-5)
    tensors = checkpoint.latest(run).tensors("model")
    for name, value in nn.ModuleDict(streams).state_dict().items():
        torch.testing.assert_close(
            tensors[name],
            value,
            rtol=1e-4,
            atol=2e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_the_c_stream_alone_is_a_run_too(data, tmp_path):
    c, _ = make_streams()
    c.double()  # in six steps float32's rounding grows to more than is allowed
    settings = {"lr": 0.3, "weight_decay": 0.1, "momentum": 0.5}
    pretrain(data, tmp_path, make_streams()[0].double(), **gathered(SETTINGS | settings))
    assert_same_run(tmp_path, plain_loop(data, c, None, **settings), {"c": c})
    assert not any(name.startswith("t.") for name in checkpoint.latest(tmp_path).tensors("model"))


def test_training_changes_the_encoder_and_the_target_follows(whole):
    c, _ = make_streams()
    trained = load_file(checkpoint.latest(whole).path / "model.safetensors")
    first = c.backbone.online.conv1.weight
    online, target = (
        trained["c.backbone.online.conv1.weight"],
        trained["c.backbone.target.conv1.weight"],
    )
    assert 0 < (target - first).abs().max() < (online - first).abs().max()


def test_one_checkpoint_every_so_many_steps_stays(data, tmp_path):
    train(data, tmp_path, checkpoint_every=1, keep_every=3, steps=8)
    assert saved(tmp_path) == [f"step-{n:08d}" for n in (3, 6, 7, 8)]


def test_what_a_training_computes_with_is_told_once_and_recorded(data, tmp_path, capsys):
    train(data, tmp_path, workers=2, steps=2)
    line = "pre-training: cpu, fp32, threads 1, workers 2"
    assert capsys.readouterr().err.count(line) == 1
    manifest = checkpoint.latest(tmp_path).manifest
    assert [manifest[name] for name in ("threads", "precision", "workers")] == [1, "fp32", 2]
    train(data, tmp_path, steps=2)  # all is done
    assert line not in capsys.readouterr().err


def test_the_time_spent_waiting_for_data_is_told(data, tmp_path, capsys):
    train(data, tmp_path, steps=2)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert all(0 <= line["data_wait"] <= line["seconds"] for line in lines)
    assert lines[-1]["data_wait"] > 0
    assert "data_wait" in capsys.readouterr().err


def test_several_probes_have_steps_of_their_own(data, tmp_path):
    probes = [
        TimedProbe(lambda encoder: {"first": float(encoder.training)}, 2),
        TimedProbe(lambda encoder: {"second": 7.0}, 3),
        TimedProbe(lambda encoder: {"never": 0.0}, 0),
    ]
    train(data, tmp_path, probes=probes)
    names = [sorted({"first", "second", "never"} & {*row}) for row in rows(tmp_path)]
    assert names == [[], ["first"], ["second"], ["first"], [], ["first", "second"]]


def test_whoever_listens_is_told_of_each_step_once_and_nothing_changes(whole, data, tmp_path):
    told = []
    listen = {"on_step": lambda step, numbers: told.append((step, numbers))}
    train(data, tmp_path, steps=6, **listen, probes=[TimedProbe(lambda encoder: {"a": 1.0}, 6)])
    train(data, tmp_path, steps=6, **listen)  # all is done
    assert [step for step, _ in told] == [*range(6)]
    for (step, numbers), row in zip(told, rows(tmp_path), strict=True):
        times = {"images_per_second", "data_wait"}
        assert {name: numbers[name] for name in numbers.keys() - times} | {"step": step} == row
        assert numbers["images_per_second"] > 0
        assert 0 <= numbers["data_wait"] <= 1
    assert (tmp_path / "encoder.safetensors").read_bytes() == (
        whole / "encoder.safetensors"
    ).read_bytes()


def test_a_probe_judges_the_encoder_on_the_way_and_changes_nothing(whole, data, tmp_path):
    seen = []

    def probe(encoder):
        seen.append((encoder.training, type(encoder).__name__))
        return {"knn": 12.5}

    train(data, tmp_path, probe=probe, probe_every=2)
    assert seen == [(False, "ResNetEncoder")] * 3
    assert [row.get("knn") for row in rows(tmp_path)] == [None, 12.5] * 3
    assert (tmp_path / "encoder.safetensors").read_bytes() == (
        whole / "encoder.safetensors"
    ).read_bytes()
