"""Linear classifiers on a frozen encoder: every step, the choice, the scores."""

import numpy as np
import pytest
import torch
from classifying import (
    CLASSES,
    NORMALIZE,
    RATES,
    SETTINGS,
    SIZE,
    STEPS,
    judge,
    result,
    rows,
    tensors,
)
from safetensors.torch import load_file
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision import transforms
import shards
from care.evaluate.linear import LRS
from care.evaluate.resampling import resampled_mean
from care.train.photometrics import crop
from care.train.views import View
from shards.order import permutation


def weights(run, rates, steps=STEPS):
    """The classifiers' tensors [2, rates, classes, …], without the held-out images and of all."""
    state = load_file(run / "checkpoints" / f"step-{steps:08d}" / "model.safetensors")
    return {
        name: value.view(2, len(rates), CLASSES, *value.shape[1:])
        for name, value in state.items()
        if value.ndim
    }


def plain_features(encoder, data, numbers):
    transform = transforms.Compose(
        [
            transforms.Resize(round(SIZE * 256 / 224)),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            NORMALIZE,
        ]
    )
    with torch.no_grad():
        return encoder(torch.stack([transform(data.image(int(n))) for n in numbers])).features


def plain_training(
    encoder, data, val, lr, out, *, epochs, batch_size, norm=False, seed=0, min_scale=0.08
):
    """As a reader of the docstring would write it.

    The classifier without the images ``out``, and top-1 on val after each epoch.
    """
    encoder.eval()
    layers = [nn.Linear(encoder.features, CLASSES), *([nn.BatchNorm1d(CLASSES)] if norm else [])]
    layers[0].weight.data = 0.01 * torch.randn(
        CLASSES, encoder.features, generator=torch.Generator().manual_seed(seed)
    )
    nn.init.zeros_(layers[0].bias)
    model, view, tops = (
        nn.Sequential(*layers),
        View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0),
        [],
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * batch_size / 256, momentum=0.9)
    schedule = CosineAnnealingLR(optimizer, T_max=epochs * (len(data) // batch_size))
    asked = plain_features(encoder, val, range(len(val)))
    for epoch in range(epochs):
        for step in range(len(data) // batch_size):
            _, ids = shards.step_ids(
                len(data),
                batch_size=batch_size,
                step=epoch * (len(data) // batch_size) + step,
                seed=seed,
            )
            crops = [
                np.array(
                    crop(np.array(data.image(int(n))), view.draw(seed, epoch, int(n), 0), SIZE)
                )
                for n in ids
            ]
            with torch.no_grad():
                x = encoder(
                    torch.stack([NORMALIZE(torch.from_numpy(one).float() / 255) for one in crops])
                ).features
            logits = model.train()(x)
            counted = [n for n, number in enumerate(ids) if int(number) not in out]
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                logits[counted], torch.tensor([int(data.labels[ids[n]]) for n in counted])
            ).backward()
            optimizer.step()
            schedule.step()
        tops.append(100 * float((model.eval()(asked).argmax(1).numpy() == val.labels).mean()))
    return model, tops


NORMED = {"norm": True, "lrs": (0.05, 0.8, 5.0)}


@pytest.mark.parametrize(
    "settings",
    [{}, NORMED, {"batch_size": 10, "seed": 5, "min_scale": 0.5, "held_out": 0.4} | NORMED],
)
def test_both_classifiers_of_every_rate_are_those_of_a_plain_loop(
    encoder, train, val, tmp_path, settings
):
    got = judge(encoder, train, val, tmp_path, **SETTINGS | settings)
    plain = {"epochs": 4, "batch_size": 8} | {
        name: value for name, value in settings.items() if name not in ("held_out", "lrs")
    }
    rates, share, seed = (
        settings.get("lrs", RATES),
        settings.get("held_out", 0.2),
        settings.get("seed", 0),
    )
    out = permutation(42, seed=seed, stream=0)[: round(42 * share)].tolist()
    steps = 4 * (42 // plain["batch_size"])
    ours, lines, held_out, last = weights(tmp_path, rates, steps), rows(tmp_path), [], []
    names = {"0.weight": "linear.weight", "0.bias": "linear.bias"}
    names |= (
        {f"1.{name}": f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
        if "norm" in settings
        else {}
    )
    assert ours.keys() == set(names.values())
    for row, lr in enumerate(rates):
        for part, without in enumerate((out, [])):
            model, tops = plain_training(encoder, train, val, lr, without, **plain)
            for name, value in model.state_dict().items():
                if name in names:
                    torch.testing.assert_close(
                        ours[names[name]][part, row], value, rtol=1e-3, atol=1e-4
                    )
            if part == 0:
                scores = model(plain_features(encoder, train, out)).argmax(1).numpy()
                held_out.append(float((scores == train.labels[out]).mean()))
        logged = [line[f"val {lr:g}"] for line in lines if f"val {lr:g}" in line]
        assert logged == pytest.approx([tops[epoch - 1] for epoch in (1, 2, 4)], abs=1e-3)
        last.append((model(plain_features(encoder, val, range(30))).detach().numpy(), max(logged)))
    best = held_out.index(max(held_out))
    assert len(set(held_out)) > 1
    assert got.chosen == {"lrs": (rates[best],)}
    want = [
        100 * top_k_accuracy_score(val.labels, last[best][0], k=k, labels=range(CLASSES))
        for k in (1, 5)
    ]
    assert got.measures == pytest.approx(
        {"top1": want[0], "top5": want[1], "best1": last[best][1]}, abs=1e-3
    )
    assert got.resampled == resampled_mean(last[best][0].argmax(1) == val.labels)
    assert 0 < got.measures["top1"] < 100


@pytest.mark.parametrize("norm", [False, True])
def test_one_pass_over_several_rates_is_each_rate_alone(encoder, train, val, tmp_path, norm):
    rates = (0.2, 1.0, 5.0)  # at larger ones rounding grows beyond what is allowed here
    judge(encoder, train, val, tmp_path / "all", **SETTINGS | {"lrs": rates}, norm=norm)
    together, lines = weights(tmp_path / "all", rates), rows(tmp_path / "all")
    for row, lr in enumerate(rates):
        alone = judge(
            encoder, train, val, tmp_path / f"{row}", **SETTINGS | {"lrs": (lr,)}, norm=norm
        )
        assert alone.chosen == {"lrs": (lr,)}
        for name, value in weights(tmp_path / f"{row}", (lr,)).items():
            torch.testing.assert_close(together[name][:, row], value[:, 0], rtol=1e-5, atol=1e-5)
        own = [
            {name: value for name, value in line.items() if name in ("step", f"val {lr:g}")}
            for line in rows(tmp_path / f"{row}")
        ]
        assert own == [
            {name: value for name, value in line.items() if name in ("step", f"val {lr:g}")}
            for line in lines
        ]


@pytest.mark.parametrize("mode", [True, False])
def test_the_encoder_is_used_in_eval_mode_and_stays_as_it_was(
    whole, encoder, train, val, tmp_path, mode, untouched_generator
):
    encoder.train(mode)
    before, modes = tensors(encoder), []
    encoder.register_forward_hook(
        lambda *_: modes.append({m.training for m in encoder.modules()} | {torch.is_grad_enabled()})
    )
    torch.rand(3)
    with untouched_generator():
        got = judge(encoder, train, val, tmp_path, **SETTINGS, workers=int(mode))
    assert got == whole[1]
    assert result(tmp_path) == result(whole[0])
    assert len(modes) >= STEPS + 2
    assert all(used == {False} for used in modes)
    assert {m.training for m in encoder.modules()} == {mode}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())


def test_val_chooses_nothing(encoder, train, val, sets, tmp_path):
    changes = {"lrs": (1e-9, 50.0), "held_out": 0.5}
    first = judge(encoder, train, val, tmp_path / "first", **SETTINGS | changes)
    other = shards.open(sets[1])
    other.labels = np.random.default_rng(0).permutation(val.labels)
    second = judge(encoder, train, other, tmp_path / "second", **SETTINGS | changes)
    assert first.chosen == second.chosen == {"lrs": (50.0,)}
    assert weights(tmp_path / "first", (1, 2))["linear.weight"].equal(
        weights(tmp_path / "second", (1, 2))["linear.weight"]
    )
    assert first.measures != second.measures
    for got in (first, second):
        assert got.measures["best1"] >= got.measures["top1"]


@pytest.mark.parametrize("epochs", [3, 23])
def test_val_is_scored_as_often_as_in_the_released_code(encoder, train, val, tmp_path, epochs):
    got = judge(
        encoder,
        train,
        val,
        tmp_path,
        **SETTINGS | {"epochs": epochs, "batch_size": 40, "lrs": (300.0, 2.0)},
    )
    lines = rows(tmp_path)
    assert len(lines) == epochs
    assert [line["step"] + 1 for line in lines if "val 2" in line] == {
        3: [1, 2, 3],
        23: [1, 2, 5, 7, 10, 20, 23],
    }[epochs]
    assert all(
        line.keys() - {"step", "heads", "total", "lr"} in (set(), {"val 300", "val 2"})
        for line in lines
    )
    mine = [line[f"val {got.chosen['lrs'][0]:g}"] for line in lines if "val 2" in line]
    assert got.measures["best1"] == max(mine)
    assert got.measures["top1"] == mine[-1]


def test_what_was_measured_is_said(whole, encoder, train, val, tmp_path):
    assert whole[1].protocol == (
        "one linear layer on the frozen encoder, random crops of 32 px and flips, 4 epochs of SGD "
        "at batch 8, learning rate chosen on held-out images of train"
    )
    assert whole[1].task == "linear"
    encoder.size = 40
    got = judge(encoder, train, val, tmp_path, epochs=1, norm=True)
    assert got.protocol.startswith(
        "one linear layer and batch norm on the frozen encoder, random crops of 40 px and flips, "
        "1 epochs"
    )
    assert "at batch 42," in got.protocol
    assert {name for name in rows(tmp_path)[0] if name.startswith("val")} == {
        f"val {lr:g}" for lr in LRS
    }
    assert 0.2 in LRS  # the paper's
