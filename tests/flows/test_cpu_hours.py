"""What is said of evaluations that a CPU takes hours for."""

import pytest
from flows import cpu_hours
from flows.cpu_hours import hours_of_pipeline, hours_on_cpu, options_for_cpu
from flows.experiment import Detection, Experiment, Images, Judging, Training
from flows.protocols import QUICK
from shards import scenes


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_the_papers_detectors_and_segmenters_are_told() -> None:
    text = hours_on_cpu("detect", {})
    assert text == (
        "detect at 800 px, all its iterations of 16 images, takes hours and gigabytes of memory on"
        " this CPU"
    )
    assert "segment at 513 px" in hours_on_cpu("segment", {})
    few = hours_on_cpu("detect", {"iterations": 10})
    assert "10 iterations of 16 images, takes gigabytes of memory on" in few


def test_what_a_cpu_can_do_is_not_told() -> None:
    for verb in ("detect", "segment"):
        assert hours_on_cpu(verb, QUICK.evaluations[verb]) is None
    assert hours_on_cpu("knn", {}) is None
    assert hours_on_cpu("detect", {"size": 256, "batch_size": 8, "iterations": 500}) is None


def test_of_a_gpu_nothing_is_told(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert hours_on_cpu("detect", {}) is None
    assert hours_on_cpu("detect", {"device": "cpu"}) is not None


def test_options_that_suit_a_cpu_are_those_of_the_demo() -> None:
    words = options_for_cpu("detect").split()
    settings = dict(zip(words[::2], words[1::2], strict=True))
    assert settings["--head"] == "fpn"
    assert settings["--anchor-scale"] == "4"
    assert "--checkpoint-every" not in settings


def test_a_pipeline_tells_what_of_it_takes_hours(tmp_path) -> None:
    scenes.write(tmp_path / "boxed", count=12, size=32)
    images = Images(str(tmp_path / "boxed"))
    paper = Training(protocol="paper", batch_size=8)
    out = str(tmp_path / "out")
    (line,) = hours_of_pipeline(Experiment(out=out, images=images, training=paper))
    assert line.startswith("coco: detect at 800 px")
    small = Detection(detection_size=64, detection_iterations=250, detection_head="fpn")
    asked = Experiment(out=out, images=images, training=paper, detection=small)
    assert hours_of_pipeline(asked) == []
    few = Judging(evaluate=("attention",))
    assert hours_of_pipeline(Experiment(out=out, images=images, training=paper, judging=few)) == []
    assert hours_of_pipeline(Experiment(out=out, images=images)) == []
    assert {*cpu_hours.DEMANDS} == {"detect", "segment"}
