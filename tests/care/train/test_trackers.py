"""The callback for trackers, as the page on training has it."""

import re
from pathlib import Path
from flat import gathered
from small_runs import SETTINGS, make_streams, rows

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


class FakeTracker:
    """What W&B and trackio have in common."""

    def __init__(self):
        self.calls = []

    def init(self, *, project, name):
        self.calls.append(("init", project, name))

    def log(self, numbers, *, step):
        self.calls.append(("log", step, numbers))

    def finish(self):
        self.calls.append(("finish",))


def test_a_tracker_is_told_of_every_step(data, tmp_path):
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "tracker" in block
    ]
    written = {}
    exec(compile(block, PAGE.name, "exec"), written)
    tracker = FakeTracker()
    settings = gathered(SETTINGS | {"steps": 2})
    pretrained = written["train"](data, tmp_path / "run", *make_streams(), tracker, **settings)
    assert pretrained.steps == 2
    (begun, *steps, ended) = tracker.calls
    assert (begun, ended) == (("init", "care", str(tmp_path / "run")), ("finish",))
    assert [step for _, step, _ in steps] == [0, 1]
    log = rows(tmp_path / "run")
    for (_, _, numbers), row in zip(steps, log, strict=True):
        assert numbers["cnn"] == row["cnn"]
        assert {"images_per_second", "data_wait"} <= {*numbers}
