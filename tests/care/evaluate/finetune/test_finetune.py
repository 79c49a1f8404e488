"""Classifiers that are fine-tuned and scored."""

import copy
from importlib import import_module
import numpy as np
import pytest
import torch
from finetuning import (
    ALL,
    GOOD,
    NORMALIZE,
    SIZE,
    rate,
    rows_of,
    same,
    saved,
    tensors,
    tune,
)
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torchvision import transforms
import shards
from care import CareError, lr_at
from care.evaluate.resampling import resampled_mean
from care.train import checkpoint
from care.train.photometrics import crop
from care.train.precision import autocast
from care.train.views import View
from shards.order import permutation

trial_module = import_module("care.evaluate.trial")
finetune_module = import_module("care.evaluate.finetune")


def test_sets_of_other_classes_are_refused(encoder, train, make_image, tmp_path):
    for name in ("red", "mauve"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        make_image(0).save(tmp_path / "photos" / name / "1.png")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    with pytest.raises(CareError, match=r"have classes that .* does not have: mauve"):
        tune(encoder, train, shards.open(tmp_path / "set"), tmp_path / "run", rows=ALL)


def plain_training(encoder, data, part, rate, *, epochs, batch_size, seed=0, min_scale=0.08):
    """As a reader of the docstring would write it; no memory format, no fused update."""
    body, head = copy.deepcopy(encoder).train(), nn.Linear(encoder.features, len(data.classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizers = [
        torch.optim.SGD(
            layers.parameters(), lr=1.0, momentum=0.9, nesterov=True, foreach=False, fused=False
        )
        for layers in (body, head)
    ]
    view, batch = (
        View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0),
        min(batch_size, len(part)),
    )
    steps = epochs * (len(part) // batch)
    for step in range(steps):
        epoch, ids = shards.step_ids(len(part), batch_size=batch, step=step, seed=seed)
        rows = [int(part[i]) for i in ids]
        crops = [
            np.array(crop(np.array(data.image(row)), view.draw(seed, epoch, row, 0), SIZE))
            for row in rows
        ]
        x = torch.stack([NORMALIZE(torch.from_numpy(one).float() / 255) for one in crops])
        for optimizer, base in zip(optimizers, rate, strict=True):
            optimizer.param_groups[0]["lr"] = lr_at(step, total=steps, base=base * batch / 256)
            optimizer.zero_grad()
        nn.functional.cross_entropy(
            head(body(x).features), torch.tensor([int(data.labels[row]) for row in rows])
        ).backward()
        for optimizer in optimizers:
            optimizer.step()
    return body.eval(), head


@torch.no_grad()
def plain_logits(body, head, data, rows):
    transform = transforms.Compose(
        [
            transforms.Resize(round(SIZE * 256 / 224)),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            NORMALIZE,
        ]
    )
    return head(body(torch.stack([transform(data.image(int(row))) for row in rows])).features)


@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": 64, "min_scale": 0.5}, {"batch_size": 10, "seed": 5}]
)
def test_the_result_is_that_of_a_plain_loop(encoder, train, val, trained, tmp_path, settings):
    rows, rates = ALL[::-1][:20], ((0.05, 1.0), GOOD)
    val.labels = np.random.default_rng(0).permutation(
        val.labels
    )  # or the first five of the six classes would always be right
    got = tune(encoder, train, val, tmp_path, rows=rows, rates=rates, **settings)
    plain = {"epochs": 2, "batch_size": 8} | settings
    mixed = rows[permutation(20, seed=plain.get("seed", 0), stream=0)]
    asked, kept = mixed[:4], mixed[4:]
    held_out = []
    for part, pair, model in zip((kept, kept, mixed), (*rates, rate(got)), trained, strict=True):
        body, head = plain_training(encoder, train, part, pair, **plain)
        for ours, theirs in ((model.encoder, body), (model.head, head)):
            for (name, value), want in zip(
                ours.state_dict().items(), theirs.state_dict().values(), strict=True
            ):
                torch.testing.assert_close(
                    value, want, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
                )
        logits, labels = (
            plain_logits(body, head, train, asked),
            torch.from_numpy(train.labels[asked].astype(np.int64)),
        )
        held_out.append(
            (
                float((logits.argmax(1) == labels).float().mean()),
                -float(nn.functional.cross_entropy(logits, labels)),
            )
        )
    assert rate(got) == max(zip(held_out[:2], rates, strict=True))[1]
    assert got.chosen["epochs"] == (2,)
    scores = plain_logits(body, head, val, range(18)).numpy()
    for k, value in ((1, got.measures["top1"]), (5, got.measures["top5"])):
        assert value == pytest.approx(
            100 * top_k_accuracy_score(val.labels, scores, k=k, labels=range(6)), abs=1e-3
        )
        assert 0 < value < 100
    assert got.resampled == resampled_mean(scores.argmax(1) == val.labels)


def test_it_learns_what_the_labels_say(encoder, train, val, tmp_path):
    assert tune(encoder, train, val, tmp_path, rows=ALL, epochs=(7,)).measures["top1"] > 60


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_no_argument_and_depends_on_nothing_else(
    encoder, train, val, trained, tmp_path, workers
):
    before, labels, rows = tensors(encoder), train.labels.copy(), ALL[:20].copy()
    first = tune(encoder, train, val, tmp_path / "first", rows=rows)
    assert not encoder.training
    torch.rand(workers + 1)
    again = tune(encoder.train(), train, val, tmp_path / "again", rows=rows, workers=workers)
    assert again == first
    assert saved(tmp_path / "again") == saved(tmp_path / "first")
    assert same(tensors(trained[0]), tensors(trained[1]))
    assert encoder.training
    assert same(tensors(encoder), before)
    assert all(p.grad is None for p in encoder.parameters())
    assert np.array_equal(train.labels, labels)
    assert np.array_equal(rows, ALL[:20])


def test_torchs_global_generator_stays_where_it_was(
    tiny, train, val, tmp_path, untouched_generator
):
    with untouched_generator():
        tune(tiny, train, val, tmp_path, rows=ALL[:10], rates=(GOOD, (0.1, 1.0)), epochs=(1,))


def test_only_labelled_rows_are_read_and_those_held_out_not_trained_on(
    tiny, train, val, reads, tmp_path, monkeypatch
):
    crops = []
    monkeypatch.setattr(
        import_module("care.train.batches"),
        "crop",
        lambda *args: (crops.append(reads[-1]), crop(*args))[1],
    )
    rows = ALL[3:28]
    tune(tiny, train, val, tmp_path, rows=rows, rates=(GOOD, (0.1, 1.0)), epochs=(1,), batch_size=5)
    assert {row for name, row in reads if name == "train"} == set(rows.tolist())
    assert all(name == "train" for name, _ in crops)
    trained = [row for _, row in crops]
    selection, last = (
        [trained[:20], trained[20:40]],
        trained[40:],
    )  # an epoch for each rate, then one with all labels
    assert selection[0] == selection[1]
    assert sorted(last) == rows.tolist()
    centred = [row for name, row in reads if name == "train"]
    for row in trained:
        centred.remove(row)
    assert len(centred) == 2 * 5
    assert set(centred) == set(rows.tolist()) - set(selection[0])
    assert [row for name, row in reads if name == "val"] == list(range(18))


@pytest.mark.parametrize(
    ("count", "held_out"), [(2, 0.2), (0, 0.2), (2, 0.5), (20, 0.0), (20, 1.0)]
)
def test_too_few_labels_to_hold_a_part_out_are_refused(
    tiny, train, val, reads, tmp_path, count, held_out
):
    with pytest.raises(
        CareError,
        match=rf"cannot hold {held_out:.0%} of {count} labelled images of .*train out; use more",
    ):
        tune(
            tiny,
            train,
            val,
            tmp_path,
            rows=ALL[:count],
            rates=(GOOD, (0.1, 1.0)),
            held_out=held_out,
        )
    assert not reads


def test_the_fewest_labels_that_can_be_trained_on(tiny, train, val, tmp_path, updates):
    tune(
        tiny, train, val, tmp_path / "chosen", rows=ALL[:3], rates=(GOOD, (0.1, 1.0)), held_out=0.4
    )
    assert len(updates) == 3 * 2  # of a batch each
    tune(tiny, train, val, tmp_path / "given", rows=ALL[:2])
    with pytest.raises(CareError, match="of 1 labelled images"):
        tune(tiny, train, val, tmp_path / "one", rows=ALL[:1])


def test_a_row_without_label_is_refused(tiny, train, val, reads, tmp_path):
    train.labels = np.where(ALL == 7, -1, train.labels).astype(np.int32)
    with pytest.raises(CareError, match=r"of 20 labelled images .*all with a label"):
        tune(tiny, train, val, tmp_path, rows=ALL[:20])
    assert not reads
    tune(tiny, train, val, tmp_path, rows=ALL[8:20], epochs=(1,))


def test_encoder_and_head_have_learning_rates_of_their_own(
    encoder, train, val, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        nn.init, "zeros_", lambda x: x.detach().fill_(0.01 * (x.ndim > 1))
    )  # at 0 the encoder has no gradient
    for pair in ((0.0, 1.0), (0.1, 0.0)):
        tune(encoder, train, val, tmp_path / f"{pair}", rows=ALL[:10], rates=(pair,))
    still, moved = trained
    pairs = [
        dict(
            zip((n for n, _ in encoder.named_parameters()), model.encoder.parameters(), strict=True)
        )
        for model in (still, moved)
    ]
    first = dict(encoder.named_parameters())
    assert all(torch.equal(value, first[name]) for name, value in pairs[0].items())
    assert not torch.equal(still.head.weight, torch.full_like(still.head.weight, 0.01))
    assert not any(
        torch.equal(value, first[name])
        for name, value in pairs[1].items()
        if name.startswith(("conv1", "layer4.1.bn2"))
    )
    assert torch.equal(moved.head.weight, torch.full_like(moved.head.weight, 0.01))
    assert torch.equal(moved.head.bias, torch.zeros(6))


def test_the_head_starts_at_zero(encoder):
    model = trial_module.Classifier(encoder, 6)
    assert not any(p.any() for p in model.head.parameters())
    assert not model(torch.randn(2, 3, SIZE, SIZE)).any()


def test_the_precision_is_what_the_hardware_computes_or_what_is_given(
    tiny, train, val, precision, tmp_path, monkeypatch
):
    scored = []
    monkeypatch.setattr(
        trial_module, "autocast", lambda *args: (scored.append(args[1]), autocast(*args))[1]
    )
    losses = {}
    for given, native in ((None, "fp32"), (None, "bf16"), ("fp16", "bf16")):
        precision(native)
        run = tmp_path / f"{given or native}"
        tune(tiny, train, val, run, rows=ALL, precision=given)
        losses[run.name] = [line["cross_entropy"] for line in rows_of(run / "all labels")]
        assert checkpoint.latest(run / "all labels").manifest["settings"]["precision"] == run.name
    assert scored == ["fp32", "bf16", "fp16"]  # scored as they were trained
    for name in ("bf16", "fp16"):
        assert losses[name] != losses["fp32"]
        assert losses[name][:3] == pytest.approx(losses["fp32"][:3], rel=0.1)


def test_crops_are_by_default_as_large_as_those_of_the_training(tiny, train, val, tmp_path):
    tiny.size = 48
    assert (
        "crops of 48 px"
        in tune(tiny, train, val, tmp_path, rows=ALL, size=None, epochs=(1,)).protocol
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_stops_it(tiny, damaged_set, tmp_path, workers):
    data = shards.open(damaged_set)
    with pytest.raises(
        shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged"
    ) as caught:
        tune(tiny, data, data, tmp_path / "run", rows=np.arange(24), workers=workers)
    assert "\n" not in str(caught.value)
