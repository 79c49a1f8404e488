import json
import multiprocessing
import os
import shutil
import signal
from importlib import import_module
import numpy as np
import pytest
import torch
from memory import peak
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision import transforms
import shards
from care import CareError, TappedEncoder
from care.evaluate import Features, extract, linear, linear_on_features
from care.evaluate.linear import LRS
from care.evaluate.linear_features import FAST_LRS
from care.evaluate.linear_heads import LinearHeads, held_out_rows
from care.evaluate.resampling import resampled_mean
from care.train import Stopped, mirror
from care.train.photometrics import crop
from care.train.views import View
from shards import storage
from shards.order import permutation

module = import_module("care.evaluate.linear_features")
CLASSES = 6

# on cached features


def blobs(seed, n, spread=1.3):
    """Overlapping Gaussian classes; the channels have unequal scales and means, one is constant."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=generator)
    centres = torch.randn(CLASSES, 10, generator=torch.Generator().manual_seed(99))
    x = (centres[y] + spread * torch.randn(n, 10, generator=generator)) * torch.logspace(
        -2, 2, 10
    ) + torch.linspace(-5, 5, 10)
    return Features(torch.cat((x, torch.full((n, 1), 3.0)), 1), y, CLASSES)


@pytest.mark.parametrize("norm", [False, True])
def test_it_is_as_good_as_logistic_regression(norm):
    train, val = blobs(0, 1200), blobs(1, 1000)
    scaler = StandardScaler().fit(train.x)
    reference = LogisticRegression(max_iter=2000).fit(scaler.transform(train.x), train.y)
    want = 100 * reference.score(scaler.transform(val.x), val.y)
    got, lr = linear_on_features(train, val, norm=norm)
    assert 40 < want < 95
    assert abs(got.top1 - want) <= 2
    assert got.top1 < got.top5 <= 100
    assert lr in FAST_LRS


def test_it_is_a_function_of_its_arguments(untouched_generator):
    train, val = blobs(0, 200), blobs(1, 300)
    with untouched_generator():
        first = linear_on_features(train, val, epochs=5)
    torch.rand(3)
    assert linear_on_features(train, val, epochs=5) == first
    others = [
        linear_on_features(train, val, epochs=5, batch_size=32, seed=seed)[0].top1
        for seed in range(4)
    ]
    assert len(set(others)) > 1


def test_features_of_val_choose_nothing():
    train, val = blobs(0, 300), blobs(1, 100)
    wrong = val._replace(y=(val.y + 1) % CLASSES)
    (right_top, right_lr), (wrong_top, wrong_lr) = (
        linear_on_features(train, of, epochs=10) for of in (val, wrong)
    )
    assert right_lr == wrong_lr
    assert right_top.top1 > wrong_top.top1 + 20


def test_the_learning_rate_that_is_best_on_the_held_out_part_is_used():
    train, val = blobs(0, 300), blobs(1, 300)
    chosen = linear_on_features(train, val, lrs=(1e-9, 1.0), epochs=20)
    assert chosen[1] == 1.0
    assert chosen == linear_on_features(train, val, lrs=(1.0,), epochs=20)


def test_features_are_standardised_without_a_copy_of_the_set():
    train = Features(torch.rand(100_000, 64), torch.arange(100_000) % 3, 3)
    val = Features(torch.rand(50_000, 64), torch.arange(50_000) % 3, 3)
    settings = {"lrs": (0.1,), "epochs": 1, "batch_size": 4096, "held_out": 0.01}
    most = peak(lambda: linear_on_features(train, val, **settings))
    assert most < 0.6 * 4 * train.x.numel()


def test_features_too_few_to_hold_a_part_out_are_refused():
    train = blobs(0, 2)
    with pytest.raises(
        CareError, match="cannot hold 20% of 2 training images out; use a larger set"
    ):
        linear_on_features(train, blobs(1, 10))
    with pytest.raises(CareError, match="cannot hold 100% of 2 training images out"):
        linear_on_features(train, blobs(1, 10), held_out=1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_label_that_is_no_class_is_refused(which):
    sets = [blobs(0, 100), blobs(1, 100)]
    sets[which].y[3] = CLASSES
    with pytest.raises(CareError, match="wanted labels from 0 to 5, got some from 0 to 6"):
        linear_on_features(*sets, epochs=1)


def test_at_most_ten_thousand_images_choose_the_learning_rate():
    assert len(held_out_rows(1_281_167, 0.2, 0)) == 10_000
    assert sorted(held_out_rows(10, 0.3, 0)) == sorted(
        permutation(10, seed=0, stream=0)[:3].tolist()
    )
    assert held_out_rows(1000, 0.1, 0).tolist() != held_out_rows(1000, 0.1, 1).tolist()


@pytest.fixture
def trained(monkeypatch):
    """All classifiers, and what each step gave them: features, labels, which of the images do not choose the rate."""
    made, steps = [], []

    class Kept(LinearHeads):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

        def loss(self, *step):
            steps.append(step)
            return super().loss(*step)

    monkeypatch.setattr(module, "LinearHeads", Kept)
    return made, steps


def test_every_epoch_visits_each_feature_once_in_another_order_and_the_held_out_ones_are_the_same(
    trained,
):
    train = Features(torch.arange(20.0)[:, None], torch.arange(20) % 3, 3)
    linear_on_features(train, train, lrs=(0.1,), epochs=2, batch_size=8)
    x = (train.x - train.x.mean()) / train.x.std(correction=0)
    rows = [[int(torch.nonzero(x == value)[0, 0]) for value in step] for step, _, _ in trained[1]]
    assert [len(batch) for batch in rows] == [8] * 4
    epochs = [rows[0] + rows[1], rows[2] + rows[3]]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1]
    out = {
        row
        for batch, (_, _, kept) in zip(rows, trained[1], strict=True)
        for row, one in zip(batch, kept, strict=True)
        if not one
    }
    assert 0 < len(out) <= 4
    assert out <= set(held_out_rows(20, 0.2, 0).tolist())


@pytest.mark.parametrize("norm", [False, True])
def test_the_layer_is_trained_as_torchs_own_modules(trained, norm):
    """A step is on the whole set, so that the order does not matter; every learning rate is a classifier of its own."""
    train, lrs = blobs(0, 64), (0.1, 1.0, 8.0)
    linear_on_features(train, train, lrs=lrs, epochs=6, norm=norm, seed=3)
    (heads,), steps = trained
    wide = train.x.double()
    x = (train.x - wide.mean(0).float()) / wide.std(0, correction=0).float().clamp_min(1e-6)
    kept = torch.ones(64, dtype=torch.bool)
    kept[held_out_rows(64, 0.2, 3)] = False
    assert sorted(steps[0][0][:, 0].tolist()) == sorted(x[:, 0].tolist())
    for row, lr in enumerate(lrs):
        for part in range(2):  # without the held-out ones, and all
            model = nn.Sequential(
                nn.Linear(11, CLASSES), nn.BatchNorm1d(CLASSES) if norm else nn.Identity()
            )
            model[0].weight.data = 0.01 * torch.randn(
                CLASSES, 11, generator=torch.Generator().manual_seed(3)
            )
            nn.init.zeros_(model[0].bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=lr * 64 / 256, momentum=0.9)
            schedule = CosineAnnealingLR(optimizer, T_max=6)
            for _ in range(6):
                optimizer.zero_grad()
                counted = kept if part == 0 else slice(None)
                nn.functional.cross_entropy(model(x)[counted], train.y[counted]).backward()
                optimizer.step()
                schedule.step()
            got = heads.eval()(x)[:, part, row]
            torch.testing.assert_close(got, model.eval()(x), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(
                heads.linear.weight.view(2, 3, CLASSES, 11)[part, row],
                model[0].weight,
                rtol=1e-3,
                atol=1e-5,
            )


# on a frozen encoder


SIZE, COLOURS = 32, ("blue", "cyan", "gray", "green", "red", "yellow")
RATES = (0.5, 8.0, 50.0)
SETTINGS = {
    "size": SIZE,
    "lrs": RATES,
    "epochs": 4,
    "batch_size": 8,
    "checkpoint_every": 6,
}  # five steps an epoch
STEPS = 20
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def sets(tmp_path_factory, make_image):
    """Paths of 42 images to train on and 30 to score; their class is the colour they have more of."""
    root = tmp_path_factory.mktemp("colours")
    for name, count in (("train", 42), ("val", 30)):
        for n in range(count):
            folder = root / f"{name}-photos" / COLOURS[n % 6]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.blend(
                make_image(n + 100 * count), Image.new("RGB", (40, 40), COLOURS[n % 6]), 0.25
            )
            image.save(folder / f"{name}_{n}.png")
        shards.build(root / f"{name}-photos", root / name, shard_size=16, workers=1)
    return root / "train", root / "val"


@pytest.fixture
def train(sets):
    return shards.open(sets[0])


@pytest.fixture
def val(sets):
    return shards.open(sets[1])


def make_encoder(seed=0):
    """Of one layer; in train mode, with statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(3, 16, 3, 4, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        encoder = TappedEncoder(nn.Sequential(*layers), "0")
        encoder.train()(torch.randn(8, 3, SIZE, SIZE))
    return encoder


@pytest.fixture
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """A finished run that nothing interrupted, read only, and its result."""
    run = tmp_path_factory.mktemp("whole")
    return run, linear(make_encoder(), *map(shards.open, sets), run, **SETTINGS)


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def weights(run, rates, steps=STEPS):
    """The classifiers' tensors [2, rates, classes, …]: of the images that choose no rate, and of all."""
    state = load_file(run / "checkpoints" / f"step-{steps:08d}" / "model.safetensors")
    return {
        name: value.view(2, len(rates), CLASSES, *value.shape[1:])
        for name, value in state.items()
        if value.ndim
    }


def result(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return (run / "losses.jsonl").read_bytes(), *(
        (newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")
    )


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
    """As a reader of the docstring would write it: the classifier without the images ``out``, and top-1 on val after each epoch."""
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
    got = linear(encoder, train, val, tmp_path, **SETTINGS | settings)
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
    linear(encoder, train, val, tmp_path / "all", **SETTINGS | {"lrs": rates}, norm=norm)
    together, lines = weights(tmp_path / "all", rates), rows(tmp_path / "all")
    for row, lr in enumerate(rates):
        alone = linear(
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
        got = linear(encoder, train, val, tmp_path, **SETTINGS, workers=int(mode))
    assert got == whole[1]
    assert result(tmp_path) == result(whole[0])
    assert len(modes) >= STEPS + 2
    assert all(used == {False} for used in modes)
    assert {m.training for m in encoder.modules()} == {mode}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())


def test_an_encoder_that_changes_is_an_error(encoder, train, val, tmp_path, at_step):
    at_step([7], lambda: encoder.model[1].running_mean.add_(1e-6))
    with pytest.raises(CareError, match="the encoder has changed under a linear evaluation"):
        linear(encoder, train, val, tmp_path, **SETTINGS)


def test_val_chooses_nothing(encoder, train, val, sets, tmp_path):
    changes = {"lrs": (1e-9, 50.0), "held_out": 0.5}
    first = linear(encoder, train, val, tmp_path / "first", **SETTINGS | changes)
    other = shards.open(sets[1])
    other.labels = np.random.default_rng(0).permutation(val.labels)
    second = linear(encoder, train, other, tmp_path / "second", **SETTINGS | changes)
    assert first.chosen == second.chosen == {"lrs": (50.0,)}
    assert weights(tmp_path / "first", (1, 2))["linear.weight"].equal(
        weights(tmp_path / "second", (1, 2))["linear.weight"]
    )
    assert first.measures != second.measures
    for got in (first, second):
        assert got.measures["best1"] >= got.measures["top1"]


@pytest.mark.parametrize("epochs", [3, 23])
def test_val_is_scored_as_often_as_in_the_released_code(encoder, train, val, tmp_path, epochs):
    got = linear(
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
    want = "one linear layer on the frozen encoder, random crops of 32 px and flips, 4 epochs of SGD at batch 8"
    assert whole[1].protocol == f"{want}, learning rate chosen on held-out images of train"
    assert whole[1].task == "linear"
    encoder.size = 40
    got = linear(encoder, train, val, tmp_path, epochs=1, norm=True)
    assert got.protocol.startswith(
        "one linear layer and batch norm on the frozen encoder, random crops of 40 px and flips, 1 epochs"
    )
    assert "at batch 42," in got.protocol
    assert {name for name in rows(tmp_path)[0] if name.startswith("val")} == {
        f"val {lr:g}" for lr in LRS
    }
    assert 0.2 in LRS  # the paper's


# interruptions


@pytest.mark.parametrize(("step", "workers"), [(0, 0), (9, 1), (19, 0)])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    whole, train, val, tmp_path, at_step, step, workers
):
    at_step([step], lambda: os.kill(os.getpid(), signal.SIGKILL))
    settings = SETTINGS | {"workers": workers}
    child = multiprocessing.get_context("fork").Process(
        target=linear, args=(make_encoder(), train, val, tmp_path), kwargs=settings
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    at_step([], crash)
    torch.rand(3)
    assert linear(make_encoder(), train, val, tmp_path, **SETTINGS) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_finished_run_only_scores(whole, encoder, train, val, tmp_path, at_step):
    run = shutil.copytree(whole[0], tmp_path / "run")
    at_step(range(STEPS), crash)
    assert linear(encoder, train, val, run, **SETTINGS) == whole[1]
    assert result(run) == result(whole[0])


def test_a_request_to_stop_saves_and_the_same_call_continues(
    whole, encoder, train, val, tmp_path, at_step
):
    at_step([7], lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        Stopped, match="stopped on request after step 8 of 20 and saved; the same command continues"
    ):
        linear(encoder, train, val, tmp_path, **SETTINGS)
    assert encoder.training
    at_step(range(8), crash)
    assert linear(encoder, train, val, tmp_path, **SETTINGS) == whole[1]
    assert result(tmp_path) == result(whole[0])


def test_a_run_at_a_url_that_was_stopped_continues_on_another_machine(
    whole, encoder, train, val, machine, url, at_step
):
    at_step([7], lambda: os.kill(os.getpid(), signal.SIGTERM))
    machine("first")
    with pytest.raises(Stopped, match="stopped on request after step 8 of 20 and saved"):
        linear(encoder, train, val, url, **SETTINGS)
    at_step(range(8), crash)
    machine("second")
    assert linear(encoder, train, val, url, **SETTINGS) == whole[1]
    assert result(mirror.local_copy(url)) == result(whole[0])
    assert storage.read_bytes(f"{url}/losses.jsonl") == (whole[0] / "losses.jsonl").read_bytes()
    at_step(range(STEPS), crash)
    machine("third")
    assert linear(encoder, train, val, url, **SETTINGS) == whole[1]


CHANGES = {
    "size": 40,
    "lrs": (0.5, 8.0),
    "epochs": 6,
    "batch_size": 6,
    "norm": True,
    "min_scale": 0.2,
    "held_out": 0.3,
    "seed": 1,
    "precision": "bf16",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_settings_are_refused_by_name(whole, encoder, train, val, field):
    before, name = (
        result(whole[0]),
        {"epochs": "steps", "batch_size": "batch_size|steps"}.get(field, field),
    )
    with pytest.raises(
        CareError,
        match=rf"was trained with ({name})=.*, this call has ({name})=.*; repeat the first call's",
    ):
        linear(encoder, train, val, whole[0], **SETTINGS | {field: CHANGES[field]})
    assert result(whole[0]) == before


def test_another_encoder_and_other_data_are_refused_by_name(whole, encoder, train, val):
    for name, args in (
        ("encoder", (make_encoder(1), train, val)),
        ("data", (encoder, val, val)),
        ("val", (encoder, train, train)),
    ):
        with pytest.raises(CareError, match=f"was trained with {name}="):
            linear(*args, whole[0], **SETTINGS)


# on features, for speed


def test_fast_is_another_protocol_and_says_so(encoder, train, val, reads, tmp_path):
    features = [extract(encoder, data, size=SIZE) for data in (train, val)]
    before = tensors(encoder)
    for settings in (
        {"epochs": 20, "lrs": (0.1, 1.0)},
        {"norm": True, "seed": 2, "held_out": 0.4, "batch_size": 16},
    ):
        got = linear(
            encoder,
            train,
            val,
            tmp_path / "run",
            size=SIZE,
            fast=True,
            cache=tmp_path / "cache",
            **settings,
        )
        want, lr = linear_on_features(*features, **settings)
        assert got.measures == want._asdict()
        assert sum(got.resampled) / len(got.resampled) == pytest.approx(want.top1, abs=5)
        assert got.chosen == {"lrs": (lr,)}
        assert got.task == "linear on cached features"
        assert got.protocol.startswith(
            "one linear layer on standardised frozen features of centre crops of 32 px, "
        )
        assert got.protocol.endswith("; not the paper's protocol")
    assert len(reads) == 2 * (42 + 30)  # each set twice: here, and once into the cache
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


# what stops it


def test_sets_that_cannot_be_learned_from_are_refused_before_anything_is_read(
    encoder, train, val, data, reads, tmp_path
):
    with pytest.raises(CareError, match="must have the same classes"):
        linear(encoder, train, data, tmp_path / "run", **SETTINGS)
    for share in (0, 0.01, 1):
        with pytest.raises(
            CareError, match=f"cannot hold {share:.0%} of 42 training images out; use a larger set"
        ):
            linear(encoder, train, val, tmp_path / "run", **SETTINGS, held_out=share)
    train.labels = np.where(np.arange(42) == 7, -1, train.labels).astype(np.int32)
    for fast in (False, True):
        with pytest.raises(CareError, match="train has images without a class"):
            linear(encoder, train, val, tmp_path / "run", **SETTINGS, fast=fast)
    assert not reads
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_stops_it(encoder, data, damaged_set, tmp_path, workers):
    with pytest.raises(
        shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged"
    ) as caught:
        linear(encoder, shards.open(damaged_set), data, tmp_path, **SETTINGS, workers=workers)
    assert "\n" not in str(caught.value)
    assert encoder.training
