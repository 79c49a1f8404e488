"""Recipes, their candidates, and how one of these is chosen."""

import itertools
from importlib import import_module
from pathlib import Path
import pytest
import torch
from finetuning import ALL, GOOD, QUICK, SIZE, judge, rate, same, saved, tensors, tune
import shards
from care import CareError
from care.evaluate.recipes import RECIPES, Recipe
from care.train.run import Run
from shards.errors import Misuse

trial_module = import_module("care.evaluate.trial")
finetune_module = import_module("care.evaluate.finetune")


@pytest.fixture
def plans(monkeypatch):
    """Of all trainings, which take no step: (folder, images, rates, steps, batch size)."""
    seen, init = [], Run.__init__

    def record(self, path, model, optimizer, settings, **options):
        seen.append(
            (
                Path(path).name,
                int(options["title"].split()[2]),
                tuple(settings["rates"]),
                settings["steps"],
                settings["batch_size"],
            )
        )
        assert all(
            group["nesterov"] and group["momentum"] == 0.9 and group["weight_decay"] == 0
            for group in optimizer.param_groups
        )
        init(self, path, model, optimizer, settings, **options)

    monkeypatch.setattr(Run, "__init__", record)
    monkeypatch.setattr(trial_module, "random_crops", lambda *args, **options: [])
    return seen


def test_recipes_are_the_published_ones():
    # SwAV's rates are for 1 % and for 10 %
    assert RECIPES["swav"] == Recipe((0.02, 0.01), (5.0, 0.2), (20,), 256)
    assert RECIPES["barlow-twins"] == Recipe((0.005,), (0.5,), (20,), 256)
    byol = RECIPES["byol"]
    at_its_batch_size = [lr * byol.batch_size / 256 for lr in byol.lrs]
    assert at_its_batch_size == pytest.approx([0.005, 0.01, 0.02, 0.05, 0.1])
    assert byol.head_lrs == byol.lrs
    assert (byol.epochs, byol.batch_size) == ((30, 50), 1024)
    assert RECIPES.keys() == {"swav", "barlow-twins", "byol"}


@pytest.mark.parametrize("recipe", [None, "swav", "barlow-twins", "byol"])
def test_every_pair_of_rates_with_every_number_of_epochs_is_a_candidate(
    tiny, train, val, plans, tmp_path, recipe
):
    judge(tiny, train, val, tmp_path, rows=ALL, size=SIZE, **{"recipe": recipe} if recipe else {})
    published = RECIPES[recipe or "swav"]
    pairs = zip(published.lrs, published.head_lrs, strict=True)
    candidates = [*itertools.product(pairs, published.epochs)]
    assert len(candidates) == {"barlow-twins": 1, "byol": 10}.get(recipe, 2)
    sweep, last = plans[:-1], plans[-1]
    assert [plan[1:] for plan in sweep] == (
        [(24, pair, n, 24) for pair, n in candidates] if len(candidates) > 1 else []
    )
    assert last == (
        "all labels",
        30,
        candidates[0][0],
        candidates[0][1],
        30,
    )  # untrained all are equal, the first wins


def test_what_is_given_takes_the_recipes_place(tiny, train, val, plans, tmp_path):
    def planned(**settings):
        plans.clear()
        judge(
            tiny,
            train,
            val,
            tmp_path / f"{len(list(tmp_path.iterdir()))}",
            rows=ALL,
            size=SIZE,
            **settings,
        )
        return [plan[2:] for plan in plans[:-1] or plans]

    assert planned(lrs=(0.3, 0.4)) == [((0.3, 0.3), 20, 24), ((0.4, 0.4), 20, 24)]
    assert planned(lrs=(0.3,), head_lrs=(2.0,)) == [((0.3, 2.0), 20, 30)]
    assert planned(head_lrs=(1.0, 2.0)) == [((0.02, 1.0), 20, 24), ((0.01, 2.0), 20, 24)]
    assert planned(recipe="barlow-twins", epochs=(3, 4)) == [
        ((0.005, 0.5), 3, 24),
        ((0.005, 0.5), 4, 24),
    ]
    assert planned(recipe="byol", lrs=(0.1,), epochs=(2,), batch_size=7) == [((0.1, 0.1), 2 * 4, 7)]
    with pytest.raises(
        Misuse,
        match="wanted one head rate for each of the 2 learning rates, got 1; give as many of both",
    ):
        planned(head_lrs=(1.0,))


def test_a_single_candidate_is_trained_once_and_nothing_is_held_out(
    tiny, train, val, plans, tmp_path
):
    got = tune(tiny, train, val, tmp_path, rows=ALL)
    assert plans == [("all labels", 30, GOOD, 2 * 3, 8)]
    assert got.chosen == {"lrs": GOOD[:1], "head_lrs": GOOD[1:], "epochs": (2,)}
    assert got.protocol.endswith("learning rates and epochs as given")
    assert not (tmp_path / "chosen.json").exists()


def test_what_was_chosen_can_be_given_again(tiny, train, val, tmp_path, updates):
    first = tune(
        tiny, train, val, tmp_path / "first", rows=ALL, rates=((1e-9, 1e-9), GOOD), epochs=(1, 3)
    )
    assert first.protocol.endswith(", learning rates and epochs the best of 4 on held-out ones")
    updates.clear()
    again = judge(tiny, train, val, tmp_path / "again", rows=ALL, **QUICK | first.chosen)
    assert {name for name, _ in updates} == {"all labels"}
    assert again.measures == first.measures
    assert again.chosen == first.chosen
    assert saved(tmp_path / "again") == saved(tmp_path / "first")


def scripted(monkeypatch, *rights):
    """Replaces the logits that score models: so many images are right, each with its margin."""
    answers = iter(rights)

    class Scripted(trial_module.Classifier):
        def forward(self, x):
            if self.training:
                return super().forward(x)
            right, margin = next(answers)
            logits = torch.zeros(len(x), 6)
            for n, label in enumerate(x):
                logits[n, label if n < right else (label + 1) % 6] = margin
            return logits

    monkeypatch.setattr(trial_module, "Classifier", Scripted)
    monkeypatch.setattr(
        trial_module,
        "centre_crops",
        lambda data, batches, **_: [data.labels[batch] for batch in batches],
    )  # instead of images


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(3, 1.0), (5, 1.0), (4, 9.0)], 1),  # by top-1
        (
            [(5, 9.0), (5, 1.5), (5, 0.5)],
            1,
        ),  # among equals by cross-entropy: the wrong one's margin costs most
        (
            [(0, 1.0), (0, 2.0), (1, float("inf"))],
            0,
        ),  # one that diverged is worse than one that is never right
        ([(6, float("nan")), (2, 3.0), (2, 2.0)], 2),
    ],
)
@pytest.mark.parametrize("of", ["rates", "epochs"])
def test_the_candidate_is_the_best_on_the_held_out_part(
    tiny, train, val, monkeypatch, tmp_path, scores, best, of
):
    rates, epochs = (
        (((0.1, 0.1), (0.2, 0.2), (0.3, 0.3)), (1,)) if of == "rates" else ((GOOD,), (1, 2, 3))
    )
    scripted(monkeypatch, *scores, (4, 1.0))
    got = tune(tiny, train, val, tmp_path, rows=ALL, rates=rates, epochs=epochs)
    assert (rate(got), got.chosen["epochs"]) == (
        (rates[best], (1,)) if of == "rates" else (GOOD, (best + 1,))
    )
    assert got.measures["top1"] == pytest.approx(400 / 18, abs=5e-4)


def test_val_chooses_nothing(tiny, train, val, sets, trained, tmp_path):
    rates = ((1e-9, 1e-9), (0.4, 40.0))
    first = tune(tiny, train, val, tmp_path / "first", rows=ALL, rates=rates, epochs=(6,))
    wrong = shards.open(sets[1])
    wrong.labels = (wrong.labels + 1) % 6
    second = tune(tiny, train, wrong, tmp_path / "second", rows=ALL, rates=rates, epochs=(6,))
    assert rate(second) == rate(first) == rates[1]
    assert same(tensors(trained[2]), tensors(trained[5]))
    assert first.measures["top1"] > second.measures["top1"]


def test_a_rate_that_diverges_is_passed_over(encoder, train, val, updates, tmp_path):
    got = tune(encoder, train, val, tmp_path / "two", rows=ALL, rates=((1e30, 1e30), GOOD))
    diverged = [step for name, step in updates if name.startswith("lr 1e+30")]
    assert 0 < len(diverged) <= 3 * 2
    assert got.measures == tune(encoder, train, val, tmp_path / "one", rows=ALL).measures
    assert saved(tmp_path / "two") == saved(tmp_path / "one")
    assert rate(got) == GOOD


def test_a_training_that_diverges_at_all_rates_is_an_error(encoder, train, val, tmp_path):
    with pytest.raises(
        CareError,
        match=r"fine-tuning diverged at all of the learning rates \(1e\+30, 1e\+32\); try lower "
        "ones",
    ):
        tune(encoder, train, val, tmp_path, rows=ALL, rates=((1e30, 1e30), (1e32, 1e32)))
    assert not (tmp_path / "chosen.json").exists()
    with pytest.raises(
        CareError,
        match=r"the cross_entropy loss is nan at step \d|"
        r"diverged at the learning rates \(1e\+30, 1e\+30\)",
    ):
        tune(encoder, train, val, tmp_path, rows=ALL, rates=((1e30, 1e30),))
