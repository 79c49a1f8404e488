"""A run directory in an object store.

It is fsspec's own one in memory, by the code that serves the others.
"""

import shutil
import time
from importlib import import_module
import fsspec
import pytest
import torch
from flat import gathered
import shards
from care import BYOL, CareError, streams_for
from care.train import checkpoint, load_encoder, pretrain
from care.train.batch_size import default_batch_size
from care.train.mirror import local_copy, pull, push, recorded_settings
from care.train.precision import StreamPrecisions
from shards import locks, storage
from shards.errors import StoreError
from shards.once import listing_once

module = import_module("care.train.pretrain")

SETTINGS = {
    "size": 16,
    "batch_size": 8,
    "steps": 6,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache" / "shards"))
    yield "memory://bucket/run"
    fsspec.filesystem("memory").store.clear()


def train(data, run, **changes):
    return pretrain(
        data,
        run,
        *streams_for("resnet18-small-half", size=16, blocks=1, objective=BYOL(hidden=32)),
        **gathered(SETTINGS | changes),
    )


def on_another_machine(monkeypatch, tmp_path, name):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / name / "shards"))


def fail_at(monkeypatch, step):
    set_rates = module.set_rates

    def rates_or_error(torch_optimizer, optimizer, now, **settings):
        if now == step:
            raise ZeroDivisionError
        set_rates(torch_optimizer, optimizer, now, **settings)

    monkeypatch.setattr(module, "set_rates", rates_or_error)


def test_it_holds_what_a_local_one_holds(data, tmp_path, url):
    train(data, tmp_path / "run")
    done = train(data, url)
    assert str(done.encoder) == f"{url}/encoder.safetensors"
    there = {name: storage.read_bytes(f"{url}/{name}") for name in storage.listing(url, deep=True)}
    here = {
        str(file.relative_to(tmp_path / "run")): file
        for file in (tmp_path / "run").rglob("*")
        if file.is_file()
    }
    assert there.keys() == here.keys()
    assert [
        name
        for name in here
        if name not in ("timing.jsonl", "status.json", "about.json")
        and here[name].read_bytes() != there[name]
    ] == []
    for source in (url, f"{url}/encoder.safetensors"):
        loaded, local = (
            load_encoder(source).state_dict(),
            load_encoder(tmp_path / "run").state_dict(),
        )
        assert all(bool((loaded[name] == local[name]).all()) for name in local)


def test_another_machine_continues_it(data, tmp_path, url, monkeypatch):
    train(data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        with pytest.raises(ZeroDivisionError):
            train(data, url)
    on_another_machine(monkeypatch, tmp_path, "second")
    started, batches = [], module.batches
    monkeypatch.setattr(
        module,
        "batches",
        lambda data, **given: started.append(given["start"]) or batches(data, **given),
    )
    train(data, url)
    assert started == [4]
    for name in ("encoder.safetensors", "losses.jsonl"):
        assert storage.read_bytes(f"{url}/{name}") == (tmp_path / "whole" / name).read_bytes()


def test_another_machine_continues_it_in_its_precisions(data, tmp_path, url, monkeypatch):
    began_in = StreamPrecisions("fp32", "bf16")
    monkeypatch.setattr(
        "care.train.measured_precision.measured_precisions", lambda *_, **__: began_in
    )
    with monkeypatch.context() as patch:
        fail_at(patch, 5)
        with pytest.raises(ZeroDivisionError):
            train(data, url, precision=None)
    on_another_machine(monkeypatch, tmp_path, "second")
    faster_here = StreamPrecisions("fp32", "fp32")
    monkeypatch.setattr(
        "care.train.measured_precision.measured_precisions", lambda *_, **__: faster_here
    )
    train(data, url, precision=None)
    settings = checkpoint.latest(local_copy(url)).manifest["settings"]
    assert (settings["precision"], settings["t_precision"]) == began_in


def test_two_machines_do_not_train_one_run(data, tmp_path, url, monkeypatch):
    monkeypatch.setattr("shards.leases.LEASE_SECONDS", 2.0)
    train(data, url, steps=2)
    steps = storage.listing(f"{url}/checkpoints", deep=True).keys()
    with locks.exclusive(url, "training in"):
        on_another_machine(monkeypatch, tmp_path, "second")
        exclusive = locks.exclusive
        monkeypatch.setattr(
            locks, "exclusive", lambda folder, doing, patience: exclusive(folder, doing, patience=1)
        )
        with pytest.raises(
            shards.ShardError,
            match="another process is training in memory://bucket/run; wait until it ends, or stop",
        ):
            train(data, url)
    assert storage.listing(f"{url}/checkpoints", deep=True).keys() == steps


@pytest.mark.resume
def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(
    data, tmp_path, url, monkeypatch, capsys
):
    train(data, url)
    data_of = f"{url}/checkpoints/step-00000006/model.safetensors"
    storage.write_bytes(data_of, storage.read_bytes(data_of)[:-1] + b"?")
    on_another_machine(monkeypatch, tmp_path, "second")
    pull(url, local_copy(url))
    found = checkpoint.latest(local_copy(url))
    assert found.step == 4
    assert "model.safetensors does not match the manifest" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.resume
def test_a_damaged_newest_one_is_put_there_again(data, tmp_path, url, monkeypatch):
    train(data, url)
    data_of = f"{url}/checkpoints/step-00000006/model.safetensors"
    storage.write_bytes(data_of, b"damaged")
    manifest = storage.read_bytes(f"{url}/checkpoints/step-00000006/manifest.json")
    on_another_machine(monkeypatch, tmp_path, "second")
    train(data, url)
    assert storage.read_bytes(f"{url}/checkpoints/step-00000006/manifest.json") == manifest
    on_another_machine(monkeypatch, tmp_path, "third")
    pull(url, local_copy(url))
    assert checkpoint.latest(local_copy(url)).step == 6


def save(run, step, value, **settings):
    state = {"model": {"weight": torch.full((2, 3), float(value))}, "optimizer": {}}
    checkpoint.save(run, state, {"step": step, "settings": settings, "scaler": {}})


def test_a_checkpoint_that_differs_there_is_put_there_again(tmp_path, url):
    for run, value in (("first", 1), ("second", 2)):
        save(tmp_path / run, 2, value)
        push(tmp_path / run, url)
    pull(url, tmp_path / "third")
    weight = checkpoint.latest(tmp_path / "third").tensors("model")["weight"]
    assert weight.unique().tolist() == [2]


def test_a_checkpoint_that_is_there_is_not_put_there_again_unless_it_was_rewritten(
    tmp_path, url, monkeypatch
):
    save(tmp_path, 2, 1)
    save(tmp_path, 4, 1)
    push(tmp_path, url)
    changes = []
    for name in ("copy", "remove"):
        original = getattr(storage, name)

        def noted(*places, name=name, original=original):
            changes.append((name, str(places[-1]).removeprefix(f"{url}/checkpoints/step-0000000")))
            original(*places)

        monkeypatch.setattr(storage, name, noted)
    push(tmp_path, url)
    assert changes == []
    push(tmp_path, url, rewritten=4)
    assert changes == [
        ("remove", "4/manifest.json"),
        ("copy", "4/optimizer.safetensors"),
        ("copy", "4/model.safetensors"),
        ("copy", "4/manifest.json"),
    ]


def test_a_local_copy_of_what_had_the_url_before_is_not_taken_for_what_is_there(tmp_path, url):
    save(tmp_path / "before", 2, 1, seed=1)
    push(tmp_path / "before", url)
    pull(url, tmp_path / "copy")
    for name in storage.listing(url, deep=True):
        storage.remove(f"{url}/{name}")
    save(tmp_path / "after", 2, 2, seed=2)
    push(tmp_path / "after", url)
    pull(url, tmp_path / "copy")
    assert checkpoint.latest(tmp_path / "copy").manifest["settings"] == {"seed": 2}


def test_a_checkpoint_without_manifest_is_none_and_a_run_that_is_gone_is_not_continued(
    data, tmp_path, url
):
    train(data, url, steps=2)
    storage.remove(f"{url}/checkpoints/step-00000002/manifest.json")
    pull(url, local_copy(url))
    assert checkpoint.latest(local_copy(url)) is None
    with pytest.raises(CareError, match="bucket/other does not exist"):
        load_encoder("memory://bucket/other")


def test_reading_its_encoder_needs_no_optimizer_and_passes_over_what_is_damaged(
    data, url, monkeypatch, capsys
):
    train(data, url, steps=4)
    (newest, older) = (f"{url}/checkpoints/step-{step:08d}" for step in (4, 2))
    assert storage.listing(older)
    storage.remove(f"{newest}/optimizer.safetensors")
    read = []
    copy = storage.copy
    monkeypatch.setattr(
        storage, "copy", lambda file, to: read.append(file.rpartition("/")[2]) or copy(file, to)
    )
    whole = load_encoder(url).state_dict()
    assert read == ["manifest.json", "model.safetensors"]
    storage.write_bytes(f"{newest}/model.safetensors", b"damage")
    before = load_encoder(url).state_dict()
    assert "passing over checkpoint" in capsys.readouterr().err
    assert any((before[name] != whole[name]).any() for name in whole)


def test_its_settings_are_looked_up_once_before_a_training(data, url, monkeypatch):
    train(data, url, steps=2)
    listed = []
    listing = storage.listing
    monkeypatch.setattr(
        storage, "listing", lambda place, **deep: listed.append(place) or listing(place, **deep)
    )
    with listing_once():
        assert default_batch_size(url, 1000) == 8
        assert recorded_settings(url)["steps"] == 2
        assert recorded_settings(url)["batch_size"] == 8
    assert listed == [url]
    assert recorded_settings(url)["steps"] == 2
    assert listed == [url, url]


def test_reading_its_encoder_leaves_the_copy_of_a_training_alone(data, url):
    train(data, url, steps=2)
    mine = local_copy(url)
    (mine / "losses.jsonl").write_text("of one that is trained here")
    shutil.copytree(
        mine / "checkpoints" / "step-00000002", mine / "checkpoints" / "step-00000004"
    )  # not put there yet
    before = sorted(storage.listing(mine, deep=True).items())
    load_encoder(url)
    assert sorted(storage.listing(mine, deep=True).items()) == before


@pytest.mark.resume
def test_older_ones_go_there_too(data, url):
    train(data, url, keep_every=4, steps=8)
    steps = {name.split("/")[1] for name in storage.listing(url, deep=True) if "/" in name}
    assert steps == {"step-00000004", "step-00000006", "step-00000008"}


def test_a_store_that_refuses_is_an_error_that_names_it(data, url, monkeypatch):
    def refuse(source, to):
        raise shards.ShardError(f"cannot write {to}: no")

    monkeypatch.setattr(storage, "copy", refuse)
    with pytest.raises(
        shards.ShardError,
        match=r"cannot write memory://bucket/run/checkpoints/step-00000002/.*: no",
    ):
        train(data, url)


def failing_pushes(monkeypatch, fails):
    """Pushes of these numbers, from 0, fail as where a store is not reached."""
    from care.train import mirror

    tried = []

    def push_or_fail(*arguments, **more):
        tried.append(len(tried))
        if fails(tried[-1]):
            raise StoreError("cannot write: no network")
        push(*arguments, **more)

    monkeypatch.setattr(mirror, "push", push_or_fail)
    return tried


def test_a_store_that_is_not_reached_for_a_while_gets_all_with_the_next_checkpoint(
    data, tmp_path, url, monkeypatch, capsys
):
    tried = failing_pushes(monkeypatch, lambda number: number == 1)
    train(data, url)
    assert tried == [0, 1, 2]
    error = " ".join(capsys.readouterr().err.split())
    assert "the checkpoint of step 4 is only in" in error
    assert "until the next one is put there: cannot write: no network" in error
    on_another_machine(monkeypatch, tmp_path, "second")
    pull(url, local_copy(url))
    assert checkpoint.latest(local_copy(url)).step == 6


def test_a_last_checkpoint_that_cannot_be_put_there_fails_and_the_same_call_puts_it(
    data, url, monkeypatch
):
    with monkeypatch.context() as patch:
        failing_pushes(patch, lambda number: number >= 1)
        with pytest.raises(StoreError, match="no network"):
            train(data, url)
    newest = "checkpoints/step-00000006/manifest.json"
    assert newest not in storage.listing(url, deep=True)
    log = storage.read_bytes(local_copy(url) / "losses.jsonl")
    assert train(data, url).steps == 6
    assert newest in storage.listing(url, deep=True)
    assert storage.read_bytes(f"{url}/losses.jsonl") == log


def test_what_a_store_did_not_get_is_dropped_where_another_machine_went_on(data, url, monkeypatch):
    with monkeypatch.context() as patch:
        failing_pushes(patch, lambda number: number >= 1)
        with pytest.raises(StoreError):
            train(data, url)
    here = local_copy(url)
    assert pull(url, here)  # it is ahead
    manifest = f"{url}/checkpoints/step-00000002/manifest.json"
    storage.write_bytes(manifest, storage.read_bytes(manifest) + b" ")  # of another machine
    assert not pull(url, here)
    assert [*checkpoint.steps_in(here / "checkpoints")] == [2]


def test_a_run_that_was_taken_over_is_not_written_any_more(data, url, monkeypatch):
    set_rates = module.set_rates

    def take_over_at_step_5(torch_optimizer, optimizer, now, **settings):
        if now == 5:
            storage.write_bytes(f"{url}/.lease/00000009", b"of another")
            time.sleep(2)
        set_rates(torch_optimizer, optimizer, now, **settings)

    monkeypatch.setattr("shards.leases.LEASE_SECONDS", 2.0)
    monkeypatch.setattr(module, "set_rates", take_over_at_step_5)
    with pytest.raises(shards.ShardError, match="was taken over by another process"):
        train(data, url)
    names = storage.listing(url, deep=True)
    assert "checkpoints/step-00000004/manifest.json" in names
    assert "checkpoints/step-00000006/manifest.json" not in names


def test_what_is_kept_for_good_stays_there_though_another_machine_has_it_not(tmp_path, url):
    for step in (2, 3, 4):
        save(tmp_path / "first", step, step)
        push(tmp_path / "first", url, keep_every=2)
    pull(url, tmp_path / "second")
    save(tmp_path / "second", 5, 5)
    push(tmp_path / "second", url, keep_every=2)
    manifests = [name for name in storage.listing(url, deep=True) if name.endswith("manifest.json")]
    steps = sorted(int(name.split("-")[1].split("/")[0]) for name in manifests)
    assert steps == [2, 4, 5]
