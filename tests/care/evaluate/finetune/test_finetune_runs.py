"""Fine-tunings that were interrupted, are continued or asked for other settings."""

import multiprocessing
import os
import shutil
import signal
import pytest
import torch
from finetuning import ALL, TWO, CrashError, saved, tune
import shards
from care import CareError
from care.train import Stopped, mirror
from shards import storage


@pytest.mark.parametrize(("at", "kept"), [(0, 0), (5, 4), (6, 6), (9, 8), (12, 12), (15, 14)])
def test_an_interrupted_call_goes_on_where_it_stopped(
    whole, tiny, train, val, updates, tmp_path, at, kept
):
    steps = [
        (name, step)
        for name in ("lr 0.1 1, 2 epochs", "lr 0.4 4, 2 epochs", "all labels")
        for step in range(6)
    ]
    updates.crash_at = at
    with pytest.raises(CrashError):
        tune(tiny, train, val, tmp_path / "run", rows=ALL, **TWO)
    assert updates == steps[:at]
    updates.clear()
    assert tune(tiny, train, val, tmp_path / "run", rows=ALL, **TWO) == whole[1]
    assert updates == steps[kept:]
    assert saved(tmp_path / "run") == saved(whole[0])
    assert (tmp_path / "run" / "chosen.json").read_bytes() == (
        whole[0] / "chosen.json"
    ).read_bytes()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"chosen.json", "all labels"}


def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, tiny, train, val, updates, tmp_path
):
    updates.crash_at, updates.action = 8, lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        tune(tiny, train, val, tmp_path / "run", rows=ALL, **TWO)
    updates.clear()
    assert tune(tiny, train, val, tmp_path / "run", rows=ALL, **TWO) == whole[1]
    assert len(updates) == 18 - 9
    assert saved(tmp_path / "run") == saved(whole[0])


def test_a_finished_call_only_scores(whole, tiny, train, val, sets, updates):
    before = saved(whole[0])
    assert tune(tiny, train, val, whole[0], rows=ALL, **TWO) == whole[1]
    other = shards.open(sets[1])
    other.labels = (other.labels + 1) % 6
    assert tune(tiny, train, other, whole[0], rows=ALL, **TWO).chosen == whole[1].chosen
    assert updates == []
    assert saved(whole[0]) == before


def test_what_a_kill_left_of_the_sweep_is_removed(whole, tiny, train, val, updates):
    shutil.copytree(whole[0] / "all labels", whole[0] / "lr 0.1 1, 2 epochs")
    assert tune(tiny, train, val, whole[0], rows=ALL, **TWO) == whole[1]
    assert {path.name for path in whole[0].iterdir()} == {"chosen.json", "all labels"}
    assert updates == []


CHANGES = {
    "rows": ALL[1:],
    "rates": ((0.1, 1.0), (0.3, 4.0)),
    "epochs": (3,),
    "batch_size": 6,
    "size": 40,
    "min_scale": 0.2,
    "seed": 1,
    "held_out": 0.3,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_in_a_finished_run_are_refused_before_anything_is_trained(
    whole, tiny, train, val, updates, field
):
    before = saved(whole[0])
    with pytest.raises(
        CareError,
        match="whole was fine-tuned with other images or settings; repeat those, or choose a new "
        "run directory",
    ):
        tune(tiny, train, val, whole[0], **{"rows": ALL} | TWO | {field: CHANGES[field]})
    assert updates == []
    assert tune(tiny, train, val, whole[0], rows=ALL, **TWO) == whole[1]
    assert saved(whole[0]) == before


def test_other_settings_of_a_single_candidate_are_refused_by_name(
    tiny, train, val, updates, tmp_path
):
    tune(tiny, train, val, tmp_path, rows=ALL)
    updates.clear()
    for field, name in (
        ("rates", "rates"),
        ("rows", "rows"),
        ("seed", "rows"),
        ("size", "size"),
        ("min_scale", "min_scale"),
    ):
        value = {"rates": ((0.3, 4.0),)}.get(field, CHANGES[field])
        with pytest.raises(CareError, match=rf"was trained with .*\b{name}=.*; this call has "):
            tune(tiny, train, val, tmp_path, **{"rows": ALL} | {field: value})
    with torch.no_grad():
        tiny.model[0].weight.add_(1)
    with pytest.raises(CareError, match="was trained with encoder="):
        tune(tiny, train, val, tmp_path, rows=ALL)
    assert updates == []


def there(url):
    return {name: storage.read_bytes(f"{url}/{name}") for name in storage.listing(url, deep=True)}


def same_as_local(url, run):
    """What is at the URL is what a local run left, but for times."""
    left = {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }
    found = there(url)
    assert found.keys() == left.keys()
    assert [
        name
        for name in left
        if not name.endswith(("timing.jsonl", "status.json")) and left[name] != found[name]
    ] == []
    assert "chosen.json" in left


@pytest.mark.parametrize(
    ("at", "taken"), [(2, 3), (8, 9), (14, 15)]
)  # in the first candidate, the second, and on all labels
def test_a_run_at_a_url_that_was_stopped_continues_on_another_machine(
    whole, tiny, train, val, updates, machine, url, tmp_path, at, taken
):
    updates.crash_at, updates.action = at, lambda: os.kill(os.getpid(), signal.SIGTERM)
    machine("first")
    with pytest.raises(
        Stopped, match="stopped on request after step 3 of 6 and saved; the same command continues"
    ):
        tune(tiny, train, val, url, rows=ALL, **TWO)
    updates.clear()
    machine("second")
    assert tune(tiny, train, val, url, rows=ALL, **TWO) == whole[1]
    assert len(updates) == 18 - taken
    same_as_local(url, whole[0])
    assert [str(path.parent) for path in (tmp_path / "second" / "runs").glob("*/checkpoints")] == [
        str(mirror.local_copy(f"{url}/all labels"))
    ]
    updates.clear()
    machine("third")
    assert tune(tiny, train, val, url, rows=ALL, **TWO) == whole[1]
    assert updates == []
    with pytest.raises(CareError, match=f"{url} was fine-tuned with other images or settings"):
        tune(tiny, train, val, url, rows=ALL[1:], **TWO)


@pytest.mark.cloud
@pytest.mark.parametrize("at", [4, 10, 17])
def test_a_run_at_a_url_that_was_killed_continues_on_another_machine(
    whole, tiny, train, val, updates, machine, s3, tmp_path, at
):
    url = f"{s3}/{tmp_path.name}"
    updates.crash_at, updates.action = at, lambda: os.kill(os.getpid(), signal.SIGKILL)
    machine("first")
    settings = {"rows": ALL, **TWO}
    child = multiprocessing.get_context("fork").Process(
        target=tune, args=(tiny, train, val, url), kwargs=settings
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    updates.crash_at = None
    updates.clear()
    machine("second")
    assert tune(tiny, train, val, url, **settings) == whole[1]
    assert 0 < len(updates) < 18
    same_as_local(url, whole[0])
