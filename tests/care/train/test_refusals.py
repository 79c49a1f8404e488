"""What stops a run, and what is refused before it starts."""

import json
import shutil
import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, STEPS, CrashError, crash, make_streams, result, rows, saved, train
from torch import nn
import shards
from care import (
    BYOL,
    CareError,
    CStream,
    MomentumPair,
    Transformer,
    TStream,
    lr_at,
    resnet18,
)
from care.train import VIEWS, collapse, pretrain


def poison(*parameters):
    for p in parameters:
        nn.init.constant_(p, float("nan"))


@pytest.mark.parametrize("term", ["cnn", "transformer"])
def test_a_loss_that_is_not_finite_is_named_and_not_saved(data, tmp_path, at_step, term):
    c, t = make_streams()
    at_step(3, lambda: poison((c if term == "cnn" else t).predictor[3].bias))
    message = (
        f"the {term} loss is nan at step 3; lower lr or lengthen warmup, "
        "then start a new run directory"
    )
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
    message = (
        r"the embeddings collapsed: spread 0\.0\d* at step 2, below 0\.02 for 3 steps; "
        "lower lr, lengthen warmup or raise momentum"
    )
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


PHRASES = {
    "steps": r"--epochs for \d steps",
    "warmup": r"--warmup-epochs for \d steps",
    "views": "views=",
}


@pytest.mark.parametrize("field", [*CHANGES, "views"])
def test_other_settings_are_refused_by_name(whole, data, field):
    value = (VIEWS[0], VIEWS[0]) if field == "views" else CHANGES[field]
    before = result(whole)
    phrase = PHRASES.get(field, f"--{field.replace('_', '-')} ")
    message = (
        rf"was trained with .*{phrase}.*; this call has .*{phrase}.*; "
        "repeat the first call's settings, allow"
    )
    with pytest.raises(CareError, match=message):
        train(data, whole, **{field: value})
    assert result(whole) == before


def test_other_data_streams_and_encoders_are_refused_by_name(
    whole, data, damaged_set, tmp_path, make_image
):
    with pytest.raises(
        CareError,
        match=r"was trained with t_stream=BYOL.* detach=False.*; this call has t_stream=None",
    ):
        pretrain(data, whole, make_streams()[0], **gathered(SETTINGS))
    torch.manual_seed(0)
    c = CStream(MomentumPair(resnet18(small=True)), BYOL(hidden=32))
    with pytest.raises(
        CareError,
        match=r"--encoder resnet18-small-half.*; this call has --encoder resnet18-small,",
    ):
        pretrain(data, whole, c, **gathered(SETTINGS))
    message = r"--objective BYOL\(hidden=32.*; this call has --objective BYOL\(hidden=24"
    with pytest.raises(CareError, match=message):
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
    with pytest.raises(CareError, match=r"was trained with SET [0-9a-f]{12}; this call has SET "):
        train(shards.open(tmp_path / "set"), whole)


def as_version_0_1_left_it(run):
    """A run whose manifests lack what was not recorded then."""
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("attention", "t_precision"):
            del manifest["settings"][name]
        del manifest["own"]
        path.write_text(json.dumps(manifest))


def test_a_run_of_wider_heads_before_they_were_recorded_is_refused_by_name(whole, data, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    as_version_0_1_left_it(run)
    message = "was trained with attention=4 heads of 128; this call has attention=4 heads of 16"
    with pytest.raises(CareError, match=message):
        train(data, run)


def test_a_run_of_heads_of_128_before_they_were_recorded_goes_on(data, tmp_path):
    c, _ = make_streams()
    wide = Transformer(128, 256, map_size=(2, 2), blocks=1, dim=128)
    t = TStream(MomentumPair(wide), BYOL(hidden=32))
    done = pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 2}))
    as_version_0_1_left_it(tmp_path)
    assert pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 2})) == done


def test_a_damaged_sample_and_too_few_images_stop_the_run(damaged_set, data, tmp_path):
    with pytest.raises(shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged"):
        train(shards.open(damaged_set), tmp_path / "damaged")
    with pytest.raises(shards.ShardError, match="a set of 24; use a batch size from 1 to 24"):
        train(data, tmp_path / "few", batch_size=25)


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"steps": 0}])
def test_a_run_without_a_batch_or_a_step_is_refused(data, tmp_path, change):
    with pytest.raises(CareError, match=r"at least 2 images a step.* and 1 step"):
        train(data, tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


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
