import copy
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from importlib import import_module
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torchvision import transforms
import shards
from care import CareError, TappedEncoder, lr_at, resnet18
from care.evaluate import finetune, listed, stratified
from care.evaluate.recipes import RECIPES
from care.evaluate.resampling import resampled_mean
from care.train import Stopped, checkpoint, mirror
from care.train.photometrics import crop
from care.train.run import Run
from care.train.views import View
from shards import storage
from shards.errors import Misuse
from shards.order import permutation

module, step_module = import_module("care.evaluate.finetune"), import_module("care.train.step")
SIZE, COLOURS = 32, ("blue", "cyan", "gray", "green", "red", "yellow")
GOOD = (0.4, 4.0)
QUICK = {"size": SIZE, "epochs": (2,), "batch_size": 8}


def tune(encoder, train, val, run, *, rates=(GOOD,), **changes):
    lrs, head_lrs = zip(*rates, strict=True)
    return finetune(encoder, train, val, run, lrs=lrs, head_lrs=head_lrs, **QUICK | changes)


def rate(got):
    return (*got.chosen["lrs"], *got.chosen["head_lrs"])


@pytest.fixture(scope="module")
def sets(tmp_path_factory, make_image):
    """Paths of 30 images to train on and 18 to score; their class is the colour that prevails."""
    root = tmp_path_factory.mktemp("colours")
    for name, each in (("train", 5), ("val", 3)):
        for n in range(6 * each):
            folder = root / f"{name}-photos" / COLOURS[n % 6]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.blend(
                make_image(n + 100 * each), Image.new("RGB", (40, 40), COLOURS[n % 6]), 0.7
            )
            image.save(folder / f"{name}_{n}.png")
        shards.build(root / f"{name}-photos", root / name, workers=1)
    return root / "train", root / "val"


@pytest.fixture
def train(sets):
    return shards.open(sets[0])


@pytest.fixture
def val(sets):
    return shards.open(sets[1])


@pytest.fixture
def encoder():
    """In eval mode, as it comes from a run, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, SIZE, SIZE))
    return network.eval()


@pytest.fixture
def tiny():
    """An encoder of one layer, in train mode."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 16, 3, 4, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return TappedEncoder(nn.Sequential(*layers), "0")


@pytest.fixture(autouse=True)
def precision(monkeypatch):
    """Float32, whatever the machine, or what the test asks for."""

    def use(name):
        monkeypatch.setattr(module, "fastest_precision", lambda device: name)

    use("fp32")
    return use


@pytest.fixture
def trained(monkeypatch):
    """The classifiers in the order in which they were trained."""
    made = []

    class Kept(module._Classifier):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(module, "_Classifier", Kept)
    return made


@pytest.fixture
def updates(monkeypatch):
    """(training, step) of every step that is taken; the one whose number is ``updates.crash_at`` crashes."""

    class Updates(list):
        crash_at, action = None, staticmethod(crash)

    taken, update = Updates(), Run.update

    def record(self, step, *args):
        if len(taken) == taken.crash_at:
            taken.crash_at = None
            taken.action()
        taken.append((self.path.name, step))
        return update(self, step, *args)

    monkeypatch.setattr(Run, "update", record)
    return taken


class CrashError(Exception):
    pass


def crash():
    raise CrashError


def rows_of(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def saved(run):
    """The bytes of the weights and the log of the training on all labels."""
    newest = checkpoint.latest(run / "all labels").path
    return (run / "all labels" / "losses.jsonl").read_bytes(), (
        newest / "model.safetensors"
    ).read_bytes()


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


ALL = np.arange(30)


# rows


def draw_labels(seed=0):
    return (
        np.random.default_rng(seed)
        .choice(7, 1500, p=(0.4, 0.3, 0.2, 0.05, 0.04, 0.005, 0.005))
        .astype(np.int32)
        - 1
    )


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_of_every_class_its_share_is_chosen_and_at_least_one(fraction):
    labels = draw_labels()
    rows = stratified(labels, fraction, seed=3)
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert -1 in labels
    assert -1 not in labels[rows]
    for label in range(6):
        count = sum(1 for value in labels if value == label)
        assert sum(1 for row in rows if labels[row] == label) == max(1, round(count * fraction))


def test_a_smaller_fraction_is_a_part_of_a_larger_one():
    labels = draw_labels()
    one, ten, half, whole = (
        set(stratified(labels, fraction).tolist()) for fraction in (0.01, 0.1, 0.5, 1)
    )
    assert one < ten < half < whole
    assert whole == set(np.flatnonzero(labels >= 0).tolist())


def test_another_seed_chooses_others_and_the_same_one_the_same():
    labels = draw_labels()
    choices = [stratified(labels, 0.1, seed=seed).tolist() for seed in range(4)]
    assert all(choices[a] != choices[b] for a in range(4) for b in range(a))
    assert stratified(labels, 0.1, seed=2).tolist() == choices[2]
    same_positions = stratified(np.repeat(np.arange(2, dtype=np.int32), 400), 0.1).reshape(2, 40)
    assert (
        same_positions[0].tolist() != (same_positions[1] - 400).tolist()
    )  # every class is drawn on its own


def test_without_labels_nothing_is_chosen():
    assert stratified(np.full(5, -1, np.int32), 0.5).tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(
        Misuse, match=rf"wanted a fraction of the labels above 0 and at most 1, got {fraction}"
    ):
        stratified(draw_labels(), fraction)


def write_list(tmp_path, *lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


def test_a_list_names_images_by_their_stem(train, tmp_path):
    names = (
        "train_11.png",
        "",
        "train_4",
        "  red/train_16.JPEG ",
        "gone_1.png",
        "train_11.png",
        "train_1",
        " ",
        "other",
        "",
    )
    path = write_list(tmp_path, *names)
    rows, missing = listed(train, path)
    keys = [key.rpartition("/")[2] for key in train.keys]
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(keys.index(f"train_{n}") for n in (1, 4, 11, 16))
    assert missing == ["gone_1.png", "other"]
    assert listed(train, str(write_list(tmp_path, "train_29.png")))[1] == []


def test_a_name_that_several_images_have_is_refused(make_image, tmp_path):
    for n, name in enumerate(("ant/1.png", "bee/1.png", "bee/2.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(tmp_path / "photos" / name)
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    data = shards.open(tmp_path / "set")
    with pytest.raises(
        CareError, match=r"list\.txt names 1\.jpg, but .*set has 2 images of that name"
    ):
        listed(data, write_list(tmp_path, "2.jpg", "1.jpg"))
    rows, missing = listed(data, write_list(tmp_path, "2.jpg", "3.jpg"))
    assert [data.keys[row] for row in rows] == ["bee/2"]
    assert missing == ["3.jpg"]


def test_names_with_dots_and_equal_stems_are_told_apart(make_image, tmp_path):
    for n, name in enumerate(("3.jpg", "3.png", "x.v2.png", "4.png")):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        make_image(n).save(tmp_path / "photos" / "a" / name)
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    data = shards.open(tmp_path / "set")
    row = {
        name: [data.keys[n] for n in listed(data, write_list(tmp_path, name))[0]]
        for name in ("3.jpg", "3.png", "x.v2.png", "x.v2")
    }
    assert row == {
        "3.jpg": ["a/3"],
        "3.png": ["a/3%2Epng"],
        "x.v2.png": ["a/x%2Ev2"],
        "x.v2": ["a/x%2Ev2"],
    }
    assert listed(data, write_list(tmp_path, "4.tar", "3"))[1] == ["4.tar"]


def test_sets_of_other_classes_are_refused(encoder, train, make_image, tmp_path):
    for name in ("red", "mauve"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        make_image(0).save(tmp_path / "photos" / name / "1.png")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    with pytest.raises(CareError, match="must have the same classes"):
        tune(encoder, train, shards.open(tmp_path / "set"), tmp_path / "run", rows=ALL)


def test_a_list_of_another_set_and_one_that_cannot_be_read_are_refused(train, tmp_path):
    with pytest.raises(
        CareError,
        match=r"none of the 2 names in .*list\.txt is an image of .*train; the list is of another set",
    ):
        listed(train, write_list(tmp_path, "n01440764_1.JPEG", "", "n01440764_2.JPEG"))
    with pytest.raises(CareError, match="none of the 0 names"):
        listed(train, write_list(tmp_path, "", " "))
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(CareError, match=f"cannot read the list {path}"):
            listed(train, path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(CareError, match=r"cannot read the list .*image\.png"):
        listed(train, tmp_path / "image.png")


# training


NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


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


def test_val_chooses_nothing(tiny, train, val, sets, trained, tmp_path):
    rates = ((1e-9, 1e-9), (0.4, 40.0))
    first = tune(tiny, train, val, tmp_path / "first", rows=ALL, rates=rates, epochs=(6,))
    wrong = shards.open(sets[1])
    wrong.labels = (wrong.labels + 1) % 6
    second = tune(tiny, train, wrong, tmp_path / "second", rows=ALL, rates=rates, epochs=(6,))
    assert rate(second) == rate(first) == rates[1]
    assert same(tensors(trained[2]), tensors(trained[5]))
    assert first.measures["top1"] > second.measures["top1"]


# which images


def test_the_images_are_given_in_exactly_one_way(tiny, train, val, reads, tmp_path):
    ways = {"fraction": 0.4, "names": write_list(tmp_path, "train_1.png"), "rows": ALL}
    for count in (0, 2, 3):
        for chosen in itertools.combinations(ways, count):
            with pytest.raises(
                Misuse,
                match=r"as one of fraction and names, such as --fraction 0\.1 or --list NAMES\.txt",
            ):
                tune(tiny, train, val, tmp_path / "run", **{name: ways[name] for name in chosen})
    with pytest.raises(
        Misuse, match="wanted a fraction of the labels above 0 and at most 1, got 0"
    ):
        tune(tiny, train, val, tmp_path / "run", fraction=0.0)
    assert not reads
    assert not (tmp_path / "run").exists()


def test_a_fraction_and_a_list_are_the_rows_that_they_choose(tiny, train, val, tmp_path, capsys):
    wanted = tune(
        tiny, train, val, tmp_path / "1", rows=stratified(train.labels, 0.4, seed=3), seed=3
    )
    assert tune(tiny, train, val, tmp_path / "2", fraction=0.4, seed=3) == wanted
    assert saved(tmp_path / "2") == saved(tmp_path / "1")
    assert tune(tiny, train, val, tmp_path / "3", fraction=0.4, seed=4) == tune(
        tiny, train, val, tmp_path / "4", rows=stratified(train.labels, 0.4, seed=4), seed=4
    )
    path = write_list(
        tmp_path,
        *(
            key.rpartition("/")[2]
            for key in np.array(train.keys)[stratified(train.labels, 0.4, seed=3)]
        ),
    )
    assert tune(tiny, train, val, tmp_path / "5", names=path, seed=3) == wanted
    assert saved(tmp_path / "5") == saved(tmp_path / "1")
    assert "not in" not in capsys.readouterr().err
    assert wanted.task == "40 % of the labels"
    want = "the whole network fine-tuned on 12 labelled images, crops of 32 px, batch 8, learning rates and epochs as given"
    assert wanted.protocol == want
    assert wanted.measures.keys() == {"top1", "top5"}


def test_names_that_are_not_in_the_set_and_classes_without_a_label_are_said(
    tiny, train, val, tmp_path, capsys
):
    rows = [row for row in ALL if train.classes[train.labels[row]] not in ("cyan", "red")]
    names = [train.keys[row].rpartition("/")[2] for row in rows]
    got = tune(
        tiny,
        train,
        val,
        tmp_path / "list",
        names=write_list(tmp_path, *names, "gone_1.png", "gone_2.png"),
    )
    said = capsys.readouterr().err
    assert f"2 names of {tmp_path}/list.txt are not in {train.path}, such as gone_1.png\n" in said
    assert "2 classes have no labelled image, such as cyan\n" in said
    assert tune(tiny, train, val, tmp_path / "rows", rows=np.array(rows)) == got
    assert "classes have no" in capsys.readouterr().err
    tune(tiny, train, val, tmp_path / "all", rows=ALL)
    assert "no labelled image" not in capsys.readouterr().err


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


# recipes


@pytest.fixture
def plans(monkeypatch):
    """Settings of all trainings, which have no steps: (folder, number of images, rates, steps, batch size)."""
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
        assert [
            group["initial_lr"] * 256 / settings["batch_size"] for group in optimizer.param_groups
        ] == pytest.approx(seen[-1][2])
        assert all(
            group["nesterov"] and group["momentum"] == 0.9 and group["weight_decay"] == 0
            for group in optimizer.param_groups
        )
        init(self, path, model, optimizer, settings, **options)

    monkeypatch.setattr(Run, "__init__", record)
    monkeypatch.setattr(module, "crops", lambda *args, **options: [])
    return seen


def test_recipes_are_the_published_ones():
    assert RECIPES["swav"] == (
        (0.02, 0.01),
        (5.0, 0.2),
        (20,),
        256,
    )  # its rates for 1 % and for 10 %
    assert RECIPES["barlow-twins"] == ((0.005,), (0.5,), (20,), 256)
    lrs, head_lrs, *rest = RECIPES["byol"]
    assert [lr * 1024 / 256 for lr in lrs] == pytest.approx(
        [0.005, 0.01, 0.02, 0.05, 0.1]
    )  # as they are at its batch size
    assert head_lrs == lrs
    assert rest == [(30, 50), 1024]
    assert RECIPES.keys() == {"swav", "barlow-twins", "byol"}


@pytest.mark.parametrize("recipe", [None, "swav", "barlow-twins", "byol"])
def test_every_pair_of_rates_with_every_number_of_epochs_is_a_candidate(
    tiny, train, val, plans, tmp_path, recipe
):
    finetune(
        tiny, train, val, tmp_path, rows=ALL, size=SIZE, **{"recipe": recipe} if recipe else {}
    )
    lrs, head_lrs, epochs, _ = RECIPES[recipe or "swav"]
    candidates = [(pair, n) for pair in zip(lrs, head_lrs, strict=True) for n in epochs]
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
        finetune(
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
    again = finetune(tiny, train, val, tmp_path / "again", rows=ALL, **QUICK | first.chosen)
    assert {name for name, _ in updates} == {"all labels"}
    assert again.measures == first.measures
    assert again.chosen == first.chosen
    assert saved(tmp_path / "again") == saved(tmp_path / "first")


# choosing


def scripted(monkeypatch, *rights):
    """Replaces the logits by which models are scored: of the images so many are right, each with its margin."""
    answers = iter(rights)

    class Scripted(module._Classifier):
        def forward(self, x):
            if self.training:
                return super().forward(x)
            right, margin = next(answers)
            logits = torch.zeros(len(x), 6)
            for n, label in enumerate(x):
                logits[n, label if n < right else (label + 1) % 6] = margin
            return logits

    monkeypatch.setattr(module, "_Classifier", Scripted)
    monkeypatch.setattr(
        module, "centres", lambda data, batches, **_: [data.labels[batch] for batch in batches]
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
    assert got.measures["top1"] == pytest.approx(400 / 18)


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
        match=r"fine-tuning diverged at all of the learning rates \(1e\+30, 1e\+32\); try lower ones",
    ):
        tune(encoder, train, val, tmp_path, rows=ALL, rates=((1e30, 1e30), (1e32, 1e32)))
    assert not (tmp_path / "chosen.json").exists()
    with pytest.raises(
        CareError,
        match=r"the cross_entropy loss is nan at step \d|diverged at the learning rates \(1e\+30, 1e\+30\)",
    ):
        tune(encoder, train, val, tmp_path, rows=ALL, rates=((1e30, 1e30),))


# one training


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
    model = module._Classifier(encoder, 6)
    assert not any(p.any() for p in model.head.parameters())
    assert not model(torch.randn(2, 3, SIZE, SIZE)).any()


def test_the_precision_is_what_the_hardware_computes_or_what_is_given(
    encoder, train, val, precision, tmp_path, monkeypatch
):
    scored = []
    monkeypatch.setattr(
        module, "autocast", lambda *args: (scored.append(args[1]), step_module.autocast(*args))[1]
    )
    losses = {}
    for given, native in ((None, "fp32"), (None, "bf16"), ("fp16", "bf16")):
        precision(native)
        run = tmp_path / f"{given or native}"
        tune(encoder, train, val, run, rows=ALL, precision=given)
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


# interruptions

TWO = {
    "rates": ((0.1, 1.0), GOOD),
    "checkpoint_every": 2,
}  # six steps each without a fifth of the labels, and six on all


@pytest.fixture
def whole(tiny, train, val, tmp_path):
    """Run and result of a call that nothing interrupted."""
    return tmp_path / "whole", tune(tiny, train, val, tmp_path / "whole", rows=ALL, **TWO)


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
        match="whole was fine-tuned with other images or settings; repeat those, or choose a new run directory",
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
        with pytest.raises(CareError, match=f"was trained with {name}="):
            tune(tiny, train, val, tmp_path, **{"rows": ALL} | {field: value})
    with torch.no_grad():
        tiny.model[0].weight.add_(1)
    with pytest.raises(CareError, match="was trained with encoder="):
        tune(tiny, train, val, tmp_path, rows=ALL)
    assert updates == []


# object stores


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


def test_a_list_may_be_a_url(tiny, train, val, machine, url, tmp_path):
    machine("first")
    names = [key.rpartition("/")[2] for key in np.array(train.keys)[:12]]
    storage.write_bytes(f"{url}/list.txt", "\n".join([*names, "gone_1.png"]).encode())
    assert listed(train, f"{url}/list.txt")[1] == ["gone_1.png"]
    got = tune(tiny, train, val, f"{url}/run", names=f"{url}/list.txt", epochs=(1,))
    assert got == tune(tiny, train, val, tmp_path / "run", rows=ALL[:12], epochs=(1,))
    with pytest.raises(CareError, match=f"cannot read the list {url}/none.txt"):
        listed(train, f"{url}/none.txt")
