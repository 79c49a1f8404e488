"""A run whose batch size is changed goes on where its images end."""

import pytest
from small_runs import CrashError, crash, rows, saved, train
import shards
from care import CareError, lr_at
from care.train import SGD
from care.train.position import Position, position_of


def position(step, before, now, images=96, *, steps=10**6, offset=0):
    manifest = {"step": step, "settings": {"batch_size": before}}
    if offset:
        manifest["offset"] = offset
    return position_of("run", manifest, {"batch_size": now, "steps": steps}, images)


@pytest.mark.parametrize(
    ("step", "before", "now", "images", "start"),
    [
        (8, 12, 48, 96, 2),
        (8, 48, 12, 96, 32),
        (7, 12, 48, 96, 1),  # 84 images: two of three batches would pass some over
        (9, 10, 10, 96, 9),
        (18, 10, 48, 96, 4),  # epochs of 90 and of 96 images: after two epochs
        (32, 12, 64, 100, 4),
        (31, 12, 64, 100, 4),  # the shorter epoch is over
        (60 * 5004, 256, 1024, 1281167, 60 * 1251),
    ],
)
def test_the_same_epochs_and_images_are_behind_it(step, before, now, images, start):
    assert position(step, before, now, images) == Position(start, step - start)


def test_a_second_change_counts_from_the_first():
    first = position(8, 12, 48)
    later = position(first.taken + 2, 48, 24, offset=first.offset)
    assert later == Position(8, first.taken + 2 - 8)


def test_without_epochs_images_alone_count():
    assert position(10, 8, 16, None) == Position(5, 5)


def test_a_finished_run_stays_finished():
    assert position(8, 12, 32, 100, steps=3) == Position(3, 5)


def test_fewer_images_than_were_seen_are_refused():
    with pytest.raises(CareError, match="seen the images of 20 steps of 12, this call asks for 10"):
        position(20, 12, 12, steps=10)
    with pytest.raises(CareError, match="steps of 48, this call asks for 4"):
        position(32, 12, 48, steps=4)


@pytest.mark.parametrize(
    ("batch_size", "steps", "start"), [(4, 12, 8), (12, 4, 2)], ids=["smaller", "larger"]
)
def test_a_run_sees_its_images_once_whatever_its_batches(
    data, tmp_path, at_step, monkeypatch, batch_size, steps, start
):
    at_step(4, crash)
    with pytest.raises(CrashError):  # after the checkpoint of step 4: 32 of 48 images
        train(data, tmp_path)
    seen = []
    step_ids = shards.step_ids

    def recording(count, **options):
        seen.append(options["step"])
        return step_ids(count, **options)

    monkeypatch.setattr(shards, "step_ids", recording)
    at_step(None, crash)
    changes = {"batch_size": batch_size, "steps": steps, "warmup": 0}
    allowed = ["batch_size", "steps", "warmup"]
    trained = train(data, tmp_path, **changes, allow_change=allowed)
    assert trained.steps == steps
    assert seen == [*range(start, steps)]
    lines = rows(tmp_path)
    assert [row["step"] for row in lines] == [*range(4 + steps - start)]
    base = SGD().lr * batch_size / 256
    rates = [lr_at(step, total=steps, base=base, warmup=0) for step in range(start, steps)]
    assert [row["lr"] for row in lines[4:]] == rates
    assert saved(tmp_path)[-1] == f"step-{len(lines):08}"
    # interrupted again, it is known where it is
    again = train(data, tmp_path, **changes)
    assert (again.steps, len(rows(tmp_path))) == (steps, len(lines))


@pytest.mark.resume
def test_a_changed_run_that_breaks_off_goes_on_to_the_same_bits(data, tmp_path, at_step):
    results = []
    for name in ("broken", "through"):
        run = tmp_path / name
        at_step(4, crash)
        with pytest.raises(CrashError):
            train(data, run)
        changes = {"batch_size": 4, "steps": 12, "allow_change": ["batch_size", "steps"]}
        if name == "broken":
            at_step(11, crash)
            with pytest.raises(CrashError):
                train(data, run, **changes)
        at_step(None, crash)
        encoder = train(data, run, **changes).encoder
        results.append((encoder.read_bytes(), (run / "losses.jsonl").read_bytes()))
    assert results[0] == results[1]
