import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
import pytest
import torch
from flat import gathered
from safetensors.torch import load_file
from torch import nn
import shards
from care import (
    BYOL,
    CareError,
    CStream,
    MomentumPair,
    TappedEncoder,
    Transformer,
    TStream,
    care_loss,
    lr_at,
    momentum_at,
    resnet18,
    streams_for,
)
from care.encoded import Encoded
from care.train import VIEWS, Stopped, batches, checkpoint, collapse, load_encoder, pretrain
from care.train import precision as precision_module

module = import_module("care.train.pretrain")

STEPS = 6
SETTINGS = {
    "size": 32,
    "batch_size": 8,
    "steps": STEPS,
    "warmup": 2,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


def make_streams(**changes):
    return streams_for(
        "resnet18-small-half",
        **{"size": 32, "seed": 0, "blocks": 1, "objective": BYOL(hidden=32)} | changes,
    )


def train(data, run, **changes):
    """A tiny run, from new streams."""
    return pretrain(data, run, *make_streams(), **gathered(SETTINGS | changes))


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def result(run):
    return (run / "encoder.safetensors").read_bytes(), (run / "losses.jsonl").read_bytes()


def saved(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(image_set, tmp_path_factory):
    """A finished run that nothing interrupted; read only."""
    run = tmp_path_factory.mktemp("whole")
    train(shards.open(image_set), run)
    return run


@pytest.fixture
def at_step(monkeypatch):
    """Does something in the middle of a run: at the start of a step, before its learning rate is set."""

    def register(step, action):
        def lr_and_action(now, **settings):
            if now == step:
                action()
            return lr_at(now, **settings)

        monkeypatch.setattr(module, "lr_at", lr_and_action)

    return register


class CrashError(Exception):
    pass


def crash(*args, **settings):
    raise CrashError


# what a run leaves


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
    monkeypatch.setattr(module, "lr_at", crash)  # there is no step to do
    assert train(data, run).steps == STEPS
    assert result(run) == result(whole)


def test_the_encoder_can_be_loaded_from_the_run_and_from_its_file(whole):
    from_run, from_file = load_encoder(whole), load_encoder(whole / "encoder.safetensors")
    assert all(
        torch.equal(value, from_file.state_dict()[key])
        for key, value in from_run.state_dict().items()
    )
    assert (from_run.size, from_file.size) == (32, 32)


def test_the_size_is_recorded_for_streams_that_were_composed_by_hand(data, tmp_path):
    torch.manual_seed(0)
    c = CStream(MomentumPair(resnet18(small=True, half=True)), BYOL(hidden=16))
    done = pretrain(data, tmp_path, c, **gathered(SETTINGS | {"steps": 1}))
    assert load_encoder(done.encoder).size == load_encoder(tmp_path).size == 32


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
        CareError, match="no encoder is called ''"
    ):  # only those in the table can be rebuilt
        load_encoder(done.encoder)


# the loop is the README's


def plain_loop(data, c, t, *, lr=0.05, weight_decay=1e-4, momentum=0.99):
    """As a reader of the README would write it; float32, no memory format, no fused update."""
    parameters = [*c.online_parameters(), *(t.online_parameters() if t else [])]
    opt = torch.optim.SGD(
        parameters, lr=0.05, momentum=0.9, weight_decay=weight_decay, foreach=False
    )
    losses = []
    for step, (x1, x2) in batches(data, size=32, batch_size=8, steps=STEPS, seed=0):
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


# interruptions


@pytest.mark.parametrize(("step", "workers"), [(0, 0), (1, 0), (3, 1), (5, 0)])
def test_a_run_that_crashed_ends_with_the_same_bits(whole, data, tmp_path, at_step, step, workers):
    at_step(step, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()
    at_step(None, crash)
    torch.rand(3)
    train(data, tmp_path, workers=workers)
    assert result(tmp_path) == result(whole)


def test_networks_that_draw_random_numbers_resume_to_the_same_bits(
    data, tmp_path, at_step, untouched_generator
):
    def run(path, drawn):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        c = CStream(MomentumPair(TappedEncoder(model, "0")), BYOL(hidden=16))
        torch.manual_seed(drawn)  # whatever the program drew before
        with untouched_generator():
            pretrain(data, path, c, **gathered(SETTINGS))

    run(tmp_path / "whole", 1)
    at_step(3, crash)
    with pytest.raises(CrashError):
        run(tmp_path / "crashed", 2)
    at_step(None, crash)
    run(tmp_path / "crashed", 3)
    assert result(tmp_path / "crashed") == result(tmp_path / "whole")


def test_a_run_that_was_killed_outright_ends_with_the_same_bits(whole, data, tmp_path, at_step):
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = multiprocessing.get_context("fork").Process(target=train, args=(data, tmp_path))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert saved(tmp_path) == ["step-00000002"]
    at_step(None, crash)
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == list(range(STEPS))


def test_logs_have_whole_lines_while_the_run_goes_on(data, tmp_path, at_step):
    seen = {}
    at_step(
        5,
        lambda: seen.update(
            {name: (tmp_path / name).read_text() for name in ("losses.jsonl", "timing.jsonl")}
        ),
    )
    train(data, tmp_path)
    for text in seen.values():
        assert text.endswith("\n")
        assert [json.loads(line)["step"] for line in text.splitlines()] == list(range(5))


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(whole, data, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    os.truncate(run / "checkpoints" / "step-00000006" / "model.safetensors", 1000)
    train(data, run)
    assert result(run) == result(whole)
    assert saved(run) == ["step-00000004", "step-00000006"]
    assert checkpoint.latest(run).step == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, data, tmp_path, at_step, number
):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    at_step(2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        train(data, tmp_path, checkpoint_every=100)
    assert saved(tmp_path) == ["step-00000003"]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    at_step(None, crash)
    train(data, tmp_path, checkpoint_every=100)
    assert result(tmp_path) == result(whole)


def test_a_request_to_stop_in_the_last_step_lets_the_run_finish(whole, data, tmp_path, at_step):
    at_step(STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)


def test_a_run_outside_the_main_thread(whole, data, tmp_path):
    thread = threading.Thread(target=train, args=(data, tmp_path))
    thread.start()
    thread.join(60)
    assert result(tmp_path) == result(whole)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(whole, data, tmp_path, monkeypatch):
    fsync = os.fsync

    def full(
        descriptor,
    ):  # from step 4 on: the one before is still being written when its time has come
        if "step-00000004" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        shards.ShardError, match=r"cannot write .*step-00000004.*No space left on device"
    ):
        train(data, tmp_path)
    assert saved(tmp_path) == ["step-00000002"]
    monkeypatch.undo()
    train(data, tmp_path)
    assert result(tmp_path) == result(whole)


# what stops a run


def poison(*parameters):
    for p in parameters:
        nn.init.constant_(p, float("nan"))


@pytest.mark.parametrize("term", ["cnn", "transformer"])
def test_a_loss_that_is_not_finite_is_named_and_not_saved(data, tmp_path, at_step, term):
    c, t = make_streams()
    at_step(3, lambda: poison((c if term == "cnn" else t).predictor[3].bias))
    message = f"the {term} loss is nan at step 3; lower lr or lengthen warmup, then start a new run directory"
    with pytest.raises(CareError, match=message):
        pretrain(data, tmp_path, c, t, **gathered(SETTINGS))
    assert saved(tmp_path) == ["step-00000002"]
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2]
    assert not (tmp_path / "encoder.safetensors").exists()


def test_collapsed_embeddings_stop_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr("care.train.collapse.PATIENCE", 3)
    c, t = make_streams()
    for head in (c.projector.online, c.projector.target):
        nn.init.zeros_(head[3].weight)
        nn.init.ones_(head[3].bias)
    message = r"the embeddings collapsed: spread 0\.0\d* at step 2, below 0\.02 for 3 steps; lower lr, lengthen warmup or raise momentum"
    with pytest.raises(CareError, match=message):
        pretrain(data, tmp_path, c, t, **gathered(SETTINGS))


def test_a_spread_that_recovers_stops_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr("care.train.collapse.PATIENCE", 3)
    spreads = iter(torch.tensor([0.01, 0.0, 0.3, 0.01, 0.0199, 0.02], dtype=torch.float64))
    monkeypatch.setattr("care.train.losses.spread", lambda embeddings: next(spreads))
    assert train(data, tmp_path).steps == STEPS


def test_spread_is_1_for_independent_directions_and_0_for_one():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(512, 256, generator=generator) * torch.rand(
        512, 1, generator=generator
    )
    unit = [row / row.norm() for row in embeddings.double()]
    mean = sum(unit) / 512
    deviations = (sum((row - mean) ** 2 for row in unit) / 511).sqrt()
    assert collapse.spread(embeddings) == pytest.approx(16 * float(deviations.mean()), abs=1e-5)
    assert collapse.spread(embeddings) == pytest.approx(1, abs=0.02)
    assert collapse.spread(embeddings[:1] * torch.arange(1, 513)[:, None]) == pytest.approx(
        0, abs=1e-5
    )


CHANGES = {
    "size": 40,
    "batch_size": 6,
    "steps": 8,
    "warmup": 1,
    "lr": 0.1,
    "weight_decay": 0.0,
    "momentum": 0.9,
    "attention_weight": 1,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", [*CHANGES, "views"])
def test_other_settings_are_refused_by_name(whole, data, field):
    value = (VIEWS[0], VIEWS[0]) if field == "views" else CHANGES[field]
    before = result(whole)
    with pytest.raises(
        CareError,
        match=rf"was trained with {field}=.*, this call has {field}=.*; repeat the first call's settings, allow",
    ):
        train(data, whole, **{field: value})
    assert result(whole) == before


def test_other_data_streams_and_encoders_are_refused_by_name(
    whole, data, damaged_set, tmp_path, make_image
):
    with pytest.raises(
        CareError,
        match=r"was trained with t_stream=BYOL.* detach=False, this call has t_stream=None",
    ):
        pretrain(data, whole, make_streams()[0], **gathered(SETTINGS))
    torch.manual_seed(0)
    c = CStream(MomentumPair(resnet18(small=True)), BYOL(hidden=32))
    with pytest.raises(
        CareError, match="encoder=resnet18-small-half, this call has encoder=resnet18-small"
    ):
        pretrain(data, whole, c, **gathered(SETTINGS))
    with pytest.raises(
        CareError,
        match=r"was trained with objective=BYOL\(hidden=32.*, this call has objective=BYOL\(hidden=24",
    ):
        pretrain(data, whole, *make_streams(objective=BYOL(hidden=24)), **gathered(SETTINGS))
    with pytest.raises(
        CareError,
        match=r"of another architecture: \d+ missing .*; use the encoder, size and blocks",
    ):
        pretrain(data, whole, *make_streams(blocks=2), **gathered(SETTINGS))
    for n in range(8):
        (tmp_path / "photos").mkdir(exist_ok=True)
        make_image(100 + n).save(tmp_path / "photos" / f"{n}.png")
    shards.build(tmp_path / "photos", tmp_path / "set")
    with pytest.raises(CareError, match="was trained with data="):
        train(shards.open(tmp_path / "set"), whole)


def as_version_0_1_left_it(run):
    """A run whose manifests lack what was not recorded then."""
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("attention", "t_precision"):
            del manifest["settings"][name]
        path.write_text(json.dumps(manifest))


def test_a_run_of_wider_heads_before_they_were_recorded_is_refused_by_name(whole, data, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    as_version_0_1_left_it(run)
    message = "was trained with attention=4 heads of 128, this call has attention=4 heads of 16"
    with pytest.raises(CareError, match=message):
        train(data, run)


def test_a_run_of_heads_of_128_before_they_were_recorded_goes_on(data, tmp_path):
    c, _ = make_streams()
    wide = Transformer(128, 256, map_size=(4, 4), blocks=1, dim=128)
    t = TStream(MomentumPair(wide), BYOL(hidden=32))
    done = pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 2}))
    as_version_0_1_left_it(tmp_path)
    assert pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 2})) == done


def test_a_damaged_sample_and_too_few_images_stop_the_run(damaged_set, data, tmp_path):
    with pytest.raises(shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged"):
        train(shards.open(damaged_set), tmp_path / "damaged")
    with pytest.raises(shards.ShardError, match="a set of 24; use a batch size from 1 to 24"):
        train(data, tmp_path / "few", batch_size=25)


# precision


def test_reduced_precision_starts_from_the_same_losses(whole, data, tmp_path):
    train(data, tmp_path, precision="bf16", steps=1)
    first, reduced = rows(whole)[0], rows(tmp_path)[0]
    for name in ("cnn", "transformer", "spread"):
        assert reduced[name] == pytest.approx(first[name], rel=0.1)
        assert reduced[name] != first[name]


@pytest.fixture
def scaled(monkeypatch):
    """Precision "fp16" scales losses, but computes in float32: some CPUs need minutes for a step in float16."""
    monkeypatch.setattr("care.train.step.autocast", lambda *_: nullcontext())


def continued_at_scale(data, run, at_step, scale, steps):
    """A half-precision run that crashed after a step, and went on with another loss scale."""
    settings = {
        **SETTINGS,
        "precision": "fp16",
        "batch_size": 2,
        "steps": steps,
        "checkpoint_every": 1,
    }
    at_step(1, crash)
    with pytest.raises(CrashError):
        pretrain(data, run, make_streams()[0], **gathered(settings))
    at_step(None, crash)
    manifest = run / "checkpoints" / "step-00000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["scaler"]["scale"] > 0
    content["scaler"]["scale"] = scale
    manifest.write_text(json.dumps(content))
    pretrain(data, run, make_streams()[0], **gathered(settings))
    return checkpoint.latest(run).manifest["scaler"]["scale"]


def test_the_loss_scale_is_saved_and_comes_back(data, tmp_path, at_step):
    assert continued_at_scale(data, tmp_path, at_step, 64.0, steps=2) == 64.0


def test_a_run_may_go_on_in_half_precision(data, tmp_path, at_step, scaled):
    settings = {**SETTINGS, "batch_size": 2, "steps": 2, "checkpoint_every": 1}
    at_step(1, crash)
    with pytest.raises(CrashError):
        pretrain(data, tmp_path, make_streams()[0], **gathered(settings))
    at_step(None, crash)
    half = {**settings, "precision": "fp16", "allow_change": ["precision"]}
    pretrain(data, tmp_path, make_streams()[0], **gathered(half))
    assert checkpoint.latest(tmp_path).manifest["scaler"]["scale"] > 0


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32"), ({}, "fp32")],
)
def test_the_precision_of_a_cpu_is_what_it_computes_natively(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision_module.fastest_precision(torch.device("cpu")) == precision


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"steps": 0}])
def test_a_run_without_a_batch_or_a_step_is_refused(data, tmp_path, change):
    with pytest.raises(CareError, match=r"at least 2 images a step.* and 1 step"):
        train(data, tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


# reduced precision, restarts, what else a run leaves


def test_a_step_whose_half_precision_gradients_overflow_is_tried_again(
    data, tmp_path, at_step, scaled
):
    assert continued_at_scale(data, tmp_path, at_step, 2.0**127, steps=3) < 2.0**127
    lines = rows(tmp_path)
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert [line["lr"] for line in lines] == [
        lr_at(n, total=3, base=0.05 * 2 / 256, warmup=2) for n in range(3)
    ]


def test_a_first_step_that_overflows_leaves_no_trace(data, tmp_path, monkeypatch, scaled):
    settings = {**SETTINGS, "precision": "fp16", "batch_size": 2, "steps": 2}
    scaler, empty_like = torch.amp.GradScaler, torch.empty_like
    monkeypatch.setattr(
        torch,
        "empty_like",
        lambda *args, **options: empty_like(*args, **options).fill_(float("nan")),
    )
    for name, scale in (("calm", 16.0), ("overflowing", 2.0**127)):
        monkeypatch.setattr(
            torch.amp,
            "GradScaler",
            lambda *args, scale=scale, **options: scaler(*args, init_scale=scale, **options),
        )
        pretrain(data, tmp_path / name, make_streams()[0], **gathered(settings))
    calm, overflowing = (
        load_encoder(tmp_path / name).conv1.weight for name in ("calm", "overflowing")
    )
    torch.testing.assert_close(calm, overflowing, rtol=1e-3, atol=1e-4)


def test_gradients_that_overflow_at_any_scale_stop_the_run(data, tmp_path, scaled):
    c, _ = make_streams()
    c.backbone.online.conv1.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        CareError, match="the gradients are not finite at step 0, whatever the loss scale"
    ):
        pretrain(data, tmp_path, c, **gathered({**SETTINGS, "precision": "fp16", "batch_size": 2}))
    assert not (tmp_path / "checkpoints").exists()


def test_collapse_warns_before_it_stops_also_across_a_restart(
    data, tmp_path, monkeypatch, capsys, at_step
):
    monkeypatch.setattr("care.train.collapse.PATIENCE", 4)
    monkeypatch.setattr("care.train.losses.spread", lambda embeddings: torch.tensor(0.01))
    at_step(2, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    assert "the embeddings are collapsing: spread 0.0100 at step 1" in capsys.readouterr().err
    at_step(None, crash)
    with pytest.raises(
        CareError,
        match=r"the embeddings collapsed: spread 0\.0100 at step 3, below 0\.02 for 4 steps",
    ):
        train(data, tmp_path)


def test_one_checkpoint_every_so_many_steps_stays(data, tmp_path):
    train(data, tmp_path, checkpoint_every=1, keep_every=3, steps=8)
    assert saved(tmp_path) == [f"step-{n:08d}" for n in (3, 6, 7, 8)]


def test_a_setting_may_be_changed_where_that_is_allowed(data, tmp_path, at_step):
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    at_step(None, crash)
    with pytest.raises(CareError, match=r"allow the change \(--allow-change lr\)"):
        train(data, tmp_path, lr=0.1, allow_change=["steps"])
    train(data, tmp_path, lr=0.1, allow_change=["lr"])
    assert [row["lr"] for row in rows(tmp_path)[2:]] == [
        lr_at(n, total=STEPS, base=0.1 * 8 / 256, warmup=2) for n in range(2, STEPS)
    ]


def test_a_run_continues_with_the_threads_it_was_started_with(
    whole, data, tmp_path, at_step, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    at_step(None, crash)
    torch.set_num_threads(2)
    try:
        train(data, tmp_path)
        assert torch.get_num_threads() == 2  # those of the caller, as before
        manifest = checkpoint.latest(tmp_path).manifest
        assert manifest["threads"] == 1  # of each view
    finally:
        torch.set_num_threads(1)
    assert result(tmp_path) == result(whole)


def test_a_run_never_takes_more_threads_than_it_may(data, tmp_path, at_step, monkeypatch, capsys):
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    at_step(None, crash)
    for manifest in tmp_path.glob("checkpoints/*/manifest.json"):
        content = json.loads(manifest.read_text()) | {"threads": 64}
        manifest.write_text(json.dumps(content))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    train(data, tmp_path)
    assert torch.get_num_threads() == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "the run had 64 threads, here it has 1: its bits may differ" in told


def test_a_container_quota_limits_the_threads(data, tmp_path, monkeypatch):
    threads = [16]  # what torch has taken of a big machine
    monkeypatch.setattr("shards.cores.cgroup_quota", lambda: 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    train(data, tmp_path)
    assert set(threads[1:]) == {1}
    assert checkpoint.latest(tmp_path).manifest["threads"] == 1


def test_what_a_training_computes_with_is_told_once_and_recorded(data, tmp_path, capsys):
    train(data, tmp_path, workers=2)
    line = "pre-training: cpu, fp32, threads 1, workers 2"
    assert capsys.readouterr().err.count(line) == 1
    manifest = checkpoint.latest(tmp_path).manifest
    assert [manifest[name] for name in ("threads", "precision", "workers")] == [1, "fp32", 2]
    train(data, tmp_path)  # all is done
    assert line not in capsys.readouterr().err


def test_the_time_spent_waiting_for_data_is_told(data, tmp_path, capsys):
    train(data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert all(0 <= line["data_wait"] <= line["seconds"] for line in lines)
    assert lines[-1]["data_wait"] > 0
    assert "data_wait" in capsys.readouterr().err


def test_how_a_run_ended_is_recorded(whole, data, tmp_path, at_step):
    def status():
        return json.loads((tmp_path / "status.json").read_text())

    at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(data, tmp_path)
    assert status() == {
        "state": "stopped",
        "message": "stopped on request after step 2 of 6 and saved; the same command continues",
    }
    at_step(2, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path)
    assert status()["state"] == "running"  # to whoever reads it later: it crashed
    with pytest.raises(CareError):
        train(data, tmp_path, lr=1.0)
    assert status()["state"] == "failed"
    assert "was trained with lr" in status()["message"]
    at_step(None, crash)
    train(data, tmp_path)
    assert status() == {"state": "done", "message": ""}


def test_two_processes_do_not_train_in_one_directory(data, tmp_path, monkeypatch):
    from shards import locks

    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    ticks = iter(range(0, 1000, 5))
    monkeypatch.setattr(locks.time, "monotonic", lambda: next(ticks))
    with (
        locks.exclusive(tmp_path, "training in"),
        pytest.raises(shards.ShardError, match="another process is training in"),
    ):
        train(data, tmp_path)


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
