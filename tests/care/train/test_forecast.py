import copy
import pytest
import torch
from care import BYOL, streams_for
from care.objectives.by_name import objective_for
from care.train import forecast
from care.train.forecast import describe_duration, forecast_seconds, is_worth_a_forecast
from care.train.recipes import RECIPES, recipe_views


@pytest.mark.parametrize(
    ("hours", "words"),
    [(1, "an hour"), (1.4, "an hour"), (31.2, "31 hours"), (312, "13 days")],
)
def test_a_duration_is_told_in_words(hours: float, words: str) -> None:
    assert describe_duration(hours * 3600) == words


def test_short_trainings_and_those_on_gpus_are_not_measured() -> None:
    cpu = torch.device("cpu")
    # ten epochs of a thousand photographs by the README's command
    assert is_worth_a_forecast(cpu, images=10_000, size=224)
    assert not is_worth_a_forecast(cpu, images=10_000, size=48)
    assert not is_worth_a_forecast(torch.device("cuda"), images=10**9, size=224)


@pytest.mark.parametrize("has_t_stream", [True, False])
def test_time_grows_with_the_images_and_nothing_is_changed(monkeypatch, has_t_stream) -> None:
    c, t = streams_for("resnet18-small-half", size=32, objective=BYOL(hidden=16))
    t = t if has_t_stream else None
    before = copy.deepcopy(c.state_dict())
    generator = torch.get_rng_state()
    ticks = iter(range(100))
    # every step takes one second, whatever it does
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: float(next(ticks)))
    seconds = forecast_seconds(c, t, images=7200, size=32)
    assert seconds == 7200 / 2
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in c.state_dict().items())


def test_quick_steps_are_measured_on_more_images(monkeypatch) -> None:
    c, t = streams_for("resnet18-small-half", size=32, objective=BYOL(hidden=16))
    measured = []

    def seconds_of_step(model, views, *, is_bf16) -> float:
        measured.append(len(views[0]))
        return len(views[0]) / 10

    monkeypatch.setattr(forecast, "_seconds_of_step", seconds_of_step)
    assert forecast_seconds(c, t, images=1000, size=32) == pytest.approx(100)
    assert measured == [2, 4, 8, 16]


@pytest.mark.parametrize("name", ["moco-v1", "swav", "infomin", "pirl", "cmc"])
@pytest.mark.parametrize("has_t_stream", [True, False])
def test_objectives_are_measured_on_its_own_views(monkeypatch, name, has_t_stream) -> None:
    """Also on more images than a small set has, for each of which a bank has one place."""
    objective = objective_for(name, hidden=16, images=3, batch_size=2)
    encoder = "lab:resnet18-small-half" if name == "cmc" else "resnet18-small-half"
    c, t = streams_for(encoder, size=32, objective=objective)
    views = recipe_views(RECIPES[name], size=32, t_stream=has_t_stream)
    # too quick to be measured on few images
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: 0.0)
    monkeypatch.setattr(forecast, "MOST_IMAGES", 4)
    t = t if has_t_stream else None
    assert forecast_seconds(c, t, images=4, size=32, precision="fp32", views=views) == 0
