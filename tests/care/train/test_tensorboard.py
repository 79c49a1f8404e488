"""Event files, read back by TensorBoard's own reader."""

import pytest
from small_runs import rows, train
from care.train.tensorboard import tensorboard_log

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard here"
)


def scalars(folder):
    """Steps and values by name, without those that a later call has hidden."""
    events = accumulators.EventAccumulator(str(folder))
    events.Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        found[name] = [(event.step, event.value) for event in events.Scalars(name)]
    return found


def write_run(data, run, **changes):
    with tensorboard_log(run) as on_step:
        train(data, run, on_step=on_step, **changes)


def test_event_files_have_the_numbers_of_the_log(data, tmp_path):
    write_run(data, tmp_path)
    found = scalars(tmp_path)
    log = rows(tmp_path)
    assert {*found} == {*log[0]} - {"step"} | {"images_per_second", "data_wait"}
    for name in ("cnn", "transformer", "attention", "spread", "lr"):
        assert [step for step, _ in found[name]] == [row["step"] for row in log]
        assert [value for _, value in found[name]] == pytest.approx(
            [row[name] for row in log], rel=1e-6
        )


def test_a_run_that_goes_on_hides_the_steps_that_it_does_again(data, tmp_path):
    def break_off(step, numbers):
        write(step, numbers)
        if step == 4:
            raise KeyboardInterrupt

    with tensorboard_log(tmp_path) as write, pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, on_step=break_off)
    assert [step for step, _ in scalars(tmp_path)["cnn"]] == [0, 1, 2, 3, 4]
    write_run(data, tmp_path)
    assert [step for step, _ in scalars(tmp_path)["cnn"]] == [0, 1, 2, 3, 4, 5]


def test_a_process_that_writes_no_log_writes_no_event_file(tmp_path):
    with tensorboard_log(tmp_path):
        pass
    assert not [*tmp_path.iterdir()]
