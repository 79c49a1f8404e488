import copy
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torchvision import transforms

import shards
from care import CareError, lr_at, resnet18
from care.evaluate import finetune, listed, stratified
from care.train.views import View, crop
from shards.order import permutation

module = import_module("care.evaluate.finetune")
SIZE, COLOURS = 32, ("blue", "cyan", "gray", "green", "red", "yellow")
GOOD = (0.4, 4.0)
QUICK = {"size": SIZE, "rates": (GOOD,), "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def sets(tmp_path_factory, make_image):
    """Paths of 30 images to train on and 18 to score; their class is the colour that prevails."""
    root = tmp_path_factory.mktemp("colours")
    for name, each in (("train", 5), ("val", 3)):
        for n in range(6 * each):
            folder = root / f"{name}-photos" / COLOURS[n % 6]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.blend(make_image(n + 100 * each), Image.new("RGB", (40, 40), COLOURS[n % 6]), 0.7)
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
def reads(monkeypatch):
    """(set, row) of every image that was read."""
    seen, image = [], shards.ShardSet.image

    def record(self, row):
        seen.append((self.path.name, int(row)))
        return image(self, row)

    monkeypatch.setattr(shards.ShardSet, "image", record)
    return seen


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


ALL = np.arange(30)


# rows


def draw_labels(seed=0):
    return np.random.default_rng(seed).choice(7, 1500, p=(0.4, 0.3, 0.2, 0.05, 0.04, 0.005, 0.005)).astype(np.int32) - 1


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
    one, ten, half, whole = (set(stratified(labels, fraction).tolist()) for fraction in (0.01, 0.1, 0.5, 1))
    assert one < ten < half < whole
    assert whole == set(np.flatnonzero(labels >= 0).tolist())


def test_another_seed_chooses_others_and_the_same_one_the_same():
    labels = draw_labels()
    choices = [stratified(labels, 0.1, seed=seed).tolist() for seed in range(4)]
    assert all(choices[a] != choices[b] for a in range(4) for b in range(a))
    assert stratified(labels, 0.1, seed=2).tolist() == choices[2]
    same_positions = stratified(np.repeat(np.arange(2, dtype=np.int32), 400), 0.1).reshape(2, 40)
    assert same_positions[0].tolist() != (same_positions[1] - 400).tolist()  # every class is drawn on its own


def test_without_labels_nothing_is_chosen():
    assert stratified(np.full(5, -1, np.int32), 0.5).tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(CareError, match=rf"wanted a fraction of the labels above 0 and at most 1, got {fraction}"):
        stratified(draw_labels(), fraction)


def write_list(tmp_path, *lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


def test_a_list_names_images_by_their_stem(train, tmp_path):
    names = ("train_11.png", "", "train_4", "  red/train_16.JPEG ", "gone_1.png", "train_11.png", "train_1", " ", "other", "")
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
    with pytest.raises(CareError, match=r"list\.txt names 1\.jpg, but .*set has 2 images of that name"):
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
    row = {name: [data.keys[n] for n in listed(data, write_list(tmp_path, name))[0]] for name in ("3.jpg", "3.png", "x.v2.png", "x.v2")}
    assert row == {"3.jpg": ["a/3"], "3.png": ["a/3%2Epng"], "x.v2.png": ["a/x%2Ev2"], "x.v2": ["a/x%2Ev2"]}
    assert listed(data, write_list(tmp_path, "4.tar", "3"))[1] == ["4.tar"]


def test_sets_of_other_classes_are_refused(encoder, train, make_image, tmp_path):
    for name in ("red", "mauve"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        make_image(0).save(tmp_path / "photos" / name / "1.png")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    with pytest.raises(CareError, match="must have the same classes"):
        finetune(encoder, train, shards.open(tmp_path / "set"), rows=ALL, **QUICK)


def test_a_list_of_another_set_and_one_that_cannot_be_read_are_refused(train, tmp_path):
    with pytest.raises(CareError, match=r"none of the 2 names in .*list\.txt is an image of .*train; the list is of another set"):
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
        torch.optim.SGD(layers.parameters(), lr=1.0, momentum=0.9, nesterov=True, foreach=False, fused=False) for layers in (body, head)
    ]
    view, batch = View(scale=(min_scale, 1.0), jitter_p=0, blur_p=0, gray_p=0), min(batch_size, len(part))
    steps = epochs * (len(part) // batch)
    for step in range(steps):
        epoch, ids = shards.step_ids(len(part), batch_size=batch, step=step, seed=seed)
        rows = [int(part[i]) for i in ids]
        crops = [np.array(crop(np.array(data.image(row)), view.draw(seed, epoch, row, 0), SIZE)) for row in rows]
        x = torch.stack([NORMALIZE(torch.from_numpy(one).float() / 255) for one in crops])
        for optimizer, base in zip(optimizers, rate, strict=True):
            optimizer.param_groups[0]["lr"] = lr_at(step, total=steps, base=base * batch / 256)
            optimizer.zero_grad()
        nn.functional.cross_entropy(head(body(x).features), torch.tensor([int(data.labels[row]) for row in rows])).backward()
        for optimizer in optimizers:
            optimizer.step()
    return body.eval(), head


@torch.no_grad()
def plain_logits(body, head, data, rows):
    transform = transforms.Compose(
        [transforms.Resize(round(SIZE * 256 / 224)), transforms.CenterCrop(SIZE), transforms.ToTensor(), NORMALIZE]
    )
    return head(body(torch.stack([transform(data.image(int(row))) for row in rows])).features)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 64, "min_scale": 0.5}, {"batch_size": 10, "seed": 5}])
def test_the_result_is_that_of_a_plain_loop(encoder, train, val, trained, settings):
    rows, rates = ALL[::-1][:20], ((0.05, 1.0), GOOD)
    val.labels = np.random.default_rng(0).permutation(val.labels)  # or the first five of the six classes would always be right
    got = finetune(encoder, train, val, rows=rows, **QUICK | settings | {"rates": rates})
    plain = {"epochs": 2, "batch_size": 8} | settings
    mixed = rows[permutation(20, seed=plain.get("seed", 0), stream=0)]
    asked, kept = mixed[:4], mixed[4:]
    held_out = []
    for part, rate, model in zip((kept, kept, mixed), (*rates, got.rate), trained, strict=True):
        body, head = plain_training(encoder, train, part, rate, **plain)
        for ours, theirs in ((model.encoder, body), (model.head, head)):
            for (name, value), want in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
                torch.testing.assert_close(value, want, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        logits, labels = plain_logits(body, head, train, asked), torch.from_numpy(train.labels[asked].astype(np.int64))
        held_out.append((float((logits.argmax(1) == labels).float().mean()), -float(nn.functional.cross_entropy(logits, labels))))
    assert got.rate == max(zip(held_out[:2], rates, strict=True))[1]
    scores = plain_logits(body, head, val, range(18)).numpy()
    for k, value in ((1, got.accuracy.top1), (5, got.accuracy.top5)):
        assert value == pytest.approx(100 * top_k_accuracy_score(val.labels, scores, k=k, labels=range(6)), abs=1e-3)
        assert 0 < value < 100
    assert got.labels == 20


def test_it_learns_what_the_labels_say(encoder, train, val):
    got = finetune(encoder, train, val, rows=ALL, **QUICK | {"epochs": 7})
    assert got.accuracy.top1 > 60


@pytest.mark.parametrize("workers", [0, 1])
def test_it_changes_no_argument_and_depends_on_nothing_else(encoder, train, val, trained, workers):
    before, labels, rows = tensors(encoder), train.labels.copy(), ALL[:20].copy()
    first = finetune(encoder, train, val, rows=rows, **QUICK)
    assert not encoder.training
    torch.rand(workers + 1)
    again = finetune(encoder.train(), train, val, rows=rows, **QUICK, workers=workers)
    assert again == first
    assert same(tensors(trained[-1]), tensors(trained[1]))
    assert encoder.training
    assert same(tensors(encoder), before)
    assert all(p.grad is None for p in encoder.parameters())
    assert np.array_equal(train.labels, labels)
    assert np.array_equal(rows, ALL[:20])


def test_torchs_global_generator_stays_where_it_was(encoder, train, val, untouched_generator):
    with untouched_generator():
        finetune(encoder, train, val, rows=ALL[:10], **QUICK | {"epochs": 1})


def test_only_labelled_rows_are_read_and_those_held_out_not_trained_on(encoder, train, val, reads, monkeypatch):
    crops = []
    monkeypatch.setattr(module, "crop", lambda *args: (crops.append(reads[-1]), crop(*args))[1])
    rows = ALL[3:28]
    finetune(encoder, train, val, rows=rows, **QUICK | {"rates": (GOOD, (0.1, 1.0)), "epochs": 1, "batch_size": 5})
    assert {row for name, row in reads if name == "train"} == set(rows.tolist())
    assert all(name == "train" for name, _ in crops)
    trained = [row for _, row in crops]
    selection, last = [trained[:20], trained[20:40]], trained[40:]  # an epoch for each rate, then one with all labels
    assert selection[0] == selection[1]
    assert sorted(last) == rows.tolist()
    centred = [row for name, row in reads if name == "train"]
    for row in trained:
        centred.remove(row)
    assert len(centred) == 2 * 5
    assert set(centred) == set(rows.tolist()) - set(selection[0])
    assert [row for name, row in reads if name == "val"] == list(range(18))


def test_val_chooses_nothing(encoder, train, val, sets, trained):
    rates = ((1e-9, 1e-9), GOOD)
    first = finetune(encoder, train, val, rows=ALL, **QUICK | {"rates": rates})
    wrong = shards.open(sets[1])
    wrong.labels = (wrong.labels + 1) % 6
    second = finetune(encoder, train, wrong, rows=ALL, **QUICK | {"rates": rates})
    assert second.rate == first.rate
    assert same(tensors(trained[2]), tensors(trained[5]))
    assert first.accuracy != second.accuracy


def scripted(monkeypatch, *rights, n=6):
    """Replaces the scores: of ``n`` images so many are right, each with its margin."""
    answers = iter(rights)

    def scores(*args):
        right, margin = next(answers)
        logits = torch.zeros(n, 6)
        logits[:right, 0], logits[right:, 1] = margin, margin
        return logits, torch.zeros(n, dtype=torch.int64)

    monkeypatch.setattr(module, "_scores", scores)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(3, 1.0), (5, 1.0), (4, 9.0)], 1),  # by top-1
        ([(5, 9.0), (5, 1.5), (5, 0.5)], 1),  # among equals by cross-entropy: the wrong one's margin costs most
        ([(0, 1.0), (0, 2.0), (1, float("inf"))], 0),  # one that diverged is worse than one that is never right
        ([(6, float("nan")), (2, 3.0), (2, 2.0)], 2),
    ],
)  # fmt: skip
def test_the_rate_is_the_best_on_the_held_out_part(encoder, train, val, monkeypatch, scores, best):
    rates = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3))
    scripted(monkeypatch, *scores, (4, 1.0))
    got = finetune(encoder, train, val, rows=ALL[:10], **QUICK | {"rates": rates, "epochs": 1})
    assert got.rate == rates[best]
    assert got.accuracy == pytest.approx((400 / 6, 100))


def test_a_rate_that_diverges_is_passed_over(encoder, train, val):
    got = finetune(encoder, train, val, rows=ALL, **QUICK | {"rates": ((1e6, 1e6), GOOD)})
    assert got == finetune(encoder, train, val, rows=ALL, **QUICK)


def test_a_training_that_diverges_at_all_rates_is_an_error(encoder, train, val):
    rates = ((1e6, 1e6), (1e7, 1e7))
    with pytest.raises(CareError, match=r"fine-tuning diverged at all of the learning rates \[\(1000.*\)\]; try lower ones"):
        finetune(encoder, train, val, rows=ALL, **QUICK | {"rates": rates})


def test_encoder_and_head_have_learning_rates_of_their_own(encoder, train, val, trained, monkeypatch):
    monkeypatch.setattr(nn.init, "zeros_", lambda x: x.detach().fill_(0.01 * (x.ndim > 1)))  # at 0 the encoder has no gradient
    for rates in ((0.0, 1.0), (0.1, 0.0)):
        finetune(encoder, train, val, rows=ALL[:10], **QUICK | {"rates": (rates,)})
    (_, still), (_, moved) = trained[:2], trained[2:]
    pairs = [dict(zip((n for n, _ in encoder.named_parameters()), model.encoder.parameters(), strict=True)) for model in (still, moved)]
    first = dict(encoder.named_parameters())
    assert all(torch.equal(value, first[name]) for name, value in pairs[0].items())
    assert not torch.equal(still.head.weight, torch.full_like(still.head.weight, 0.01))
    assert not any(torch.equal(value, first[name]) for name, value in pairs[1].items() if name.startswith(("conv1", "layer4.1.bn2")))
    assert torch.equal(moved.head.weight, torch.full_like(moved.head.weight, 0.01))
    assert torch.equal(moved.head.bias, torch.zeros(6))


def test_the_head_starts_at_zero(encoder):
    model = module._Classifier(encoder, 6)
    assert not any(p.any() for p in model.head.parameters())
    assert not model(torch.randn(2, 3, SIZE, SIZE)).any()


def test_reduced_precision_gives_nearly_the_same_logits_in_float32(encoder, precision):
    x, logits = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), {}
    for name in ("fp32", "bf16", "fp16"):
        precision(name)
        model = module._Classifier(encoder, 256).eval()
        nn.init.eye_(model.head.weight)
        logits[name] = model(x).detach()
        assert logits[name].dtype == torch.float32
    assert torch.equal(logits["fp16"], logits["fp32"])  # only for bfloat16 no loss scale is needed
    assert not torch.equal(logits["bf16"], logits["fp32"])
    torch.testing.assert_close(logits["bf16"], logits["fp32"], rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("count", "held_out"), [(2, 0.2), (0, 0.2), (2, 0.5), (20, 0.0), (20, 1.0)])
def test_too_few_labels_to_hold_a_part_out_are_refused(encoder, train, val, reads, count, held_out):
    with pytest.raises(CareError, match=rf"cannot hold {held_out:.0%} of {count} labelled images of .*train out; use more"):
        finetune(encoder, train, val, rows=ALL[:count], **QUICK, held_out=held_out)
    assert not reads


def test_the_fewest_labels_that_can_be_trained_on(encoder, train, val):
    assert finetune(encoder, train, val, rows=ALL[:3], **QUICK, held_out=0.4).labels == 3


def test_a_row_without_label_is_refused(encoder, train, val, reads):
    train.labels = np.where(ALL == 7, -1, train.labels).astype(np.int32)
    with pytest.raises(CareError, match=r"of 20 labelled images .*all with a label"):
        finetune(encoder, train, val, rows=ALL[:20], **QUICK)
    assert not reads
    finetune(encoder, train, val, rows=ALL[8:20], **QUICK | {"epochs": 1})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_stops_it(encoder, damaged_set, workers):
    data = shards.open(damaged_set)
    with pytest.raises(shards.ShardError, match=r"sample 13 .*shard-000001\.tar is damaged") as caught:
        finetune(encoder, data, data, rows=np.arange(24), **QUICK, workers=workers)
    assert "\n" not in str(caught.value)
