"""Images of several classes each: which these are, the metric beside scikit-learn's, the layer."""

import csv
import io
import json
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score
from care import CareError, resnet18
from care.evaluate import multilabel
from care.evaluate.multilabel import average_precision_of
from shards import boxes, multilabels
from shards.pixels import PixelRule

COLOURS = {"blue": (0, 0, 255), "green": (0, 200, 0), "red": (255, 0, 0)}


def write_list(folder, count, seed):
    """Grey pictures with a patch of each colour that they show; a COCO list of these."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        image = Image.new("RGB", (48, 48), (128, 128, 128))
        for place, name in enumerate(COLOURS):
            if generator.random() < 0.5:
                box = (place * 16, 0, place * 16 + 15, 47)
                ImageDraw.Draw(image).rectangle(box, fill=COLOURS[name])
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": place,
                        "bbox": [place * 16, 0, 16, 48],
                        "iscrowd": 0,
                    }
                )
        image.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 48, "height": 48})
    categories = [{"id": place, "name": name} for place, name in enumerate(COLOURS)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return multilabels.load(folder / "annotations.json")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("patches")
    return write_list(root / "train", 40, 0), write_list(root / "val", 20, 1)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, 32, 32))
    network.size = 32
    return network


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_sklearns_with_ties_and_weights(levels):
    generator = np.random.default_rng(levels)
    present = generator.random(80) < 0.3
    scores = (generator.integers(0, levels, 80) + 0.3 * levels * present).astype(np.float32)
    for weights in (np.ones(80, np.int64), generator.integers(0, 4, 80)):
        want = average_precision_score(present, scores, sample_weight=weights)
        assert average_precision_of(scores, present, weights) == pytest.approx(want, abs=1e-9)


def test_a_picture_shows_what_is_not_difficult_only(sets):
    _, val = sets
    annotated = boxes.load(val.path)
    picture = annotated.pictures[0]._replace(
        boxes=np.zeros((4, 4), np.float32),
        labels=np.array([0, 0, 1, 2]),
        difficult=np.array([True, False, True, False]),
        crowd=np.array([False, False, False, True]),
        masks=[[]] * 4,
    )
    data = multilabels.of_boxes(annotated._replace(pictures=[picture]))
    assert data.targets.tolist() == [[1, -1, 1]]


def test_a_layer_learns_what_images_show(encoder, sets):
    train, val = sets
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    got = multilabel(encoder, train, val, epochs=40, lrs=(0.1, 1.0), workers=0)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert multilabel(encoder, train, val, epochs=40, lrs=(0.1, 1.0), workers=0) == got
    rows = [*csv.DictReader(io.StringIO(got.outcomes.files()["scores.csv"].decode()))]
    assert [row["key"] for row in rows] == [*val.keys]
    for place, name in enumerate(COLOURS):
        scores = np.array([float(row[name]) for row in rows])
        want = average_precision_score(val.targets[:, place] == 1, scores)
        assert got.by_class[name] == pytest.approx(100 * want, abs=1e-3)
    assert got.measures["map"] == pytest.approx(np.mean([*got.by_class.values()]), abs=2e-3)
    # by chance it is the share of the pictures that show a class, about a half
    assert got.measures["map"] > 65
    assert got.chosen["lrs"][0] in (0.1, 1.0)
    assert np.mean(got.resampled) == pytest.approx(got.measures["map"], abs=5)


def test_sets_whose_images_became_other_pixels_are_told(encoder, sets, capsys):
    train, val = sets
    by_rule = val._replace(images=val.images._replace(rule=PixelRule(integers=(0, 4095))))
    other = train._replace(images=train.images._replace(rule=PixelRule(integers=(0, 255))))
    multilabel(encoder, other, by_rule, epochs=1, lrs=(0.1,), workers=0)
    said = " ".join(capsys.readouterr().err.split())
    assert "other ranges in train (0 to 255) and val (0 to 4,095)" in said
    multilabel(encoder, train, val, epochs=1, lrs=(0.1,), workers=0)
    assert "other ranges" not in capsys.readouterr().err


def test_sets_of_other_classes_and_without_objects_are_refused(encoder, sets):
    train, val = sets
    with pytest.raises(CareError, match="name different classes"):
        multilabel(encoder, train, val._replace(classes=("a", "b", "c")))
    empty = val._replace(targets=np.zeros_like(val.targets))
    with pytest.raises(CareError, match=r"no image of .* shows a class"):
        multilabel(encoder, empty, val)


def test_a_table_of_the_same_classes_gives_the_same_figures(encoder, sets, tmp_path, capsys):
    got = []
    for form in ("boxes", "table"):
        pair = list(sets)
        if form == "table":
            for place, data in enumerate(sets):
                table = data.path.parent / "labels.csv"
                rows = zip(data.keys, data.targets, strict=True)
                table.write_text("image,labels\n" + "".join(map(row_of_names, rows)))
                pair[place] = multilabels.load(table, classes=tuple(COLOURS))
        got.append(
            multilabel(encoder, *pair, epochs=4, lrs=(1.0,), workers=0, cache=tmp_path / form)
        )
    assert got[0] == got[1]
    assert "labels.csv: 3 classes, with ; between them: blue, green, red" in capsys.readouterr().err


def row_of_names(row):
    key, targets = row
    names = [name for name, target in zip(COLOURS, targets, strict=True) if target == 1]
    return f"{key},{';'.join(names)}\n"


def test_what_is_undecided_is_neither_learned_nor_scored(encoder, sets):
    train, val = sets
    blank = np.arange(len(train.keys)) % 3 == 0
    turned = {}
    for target in (0, 1):
        targets = train.targets.copy()
        targets[blank, 0] = target
        undecided = targets.copy()
        undecided[blank, 0] = -1
        data = train._replace(targets=undecided)
        turned[target] = multilabel(encoder, data, val, epochs=2, lrs=(1.0,), workers=0)
    assert turned[0] == turned[1]
    data = train._replace(targets=targets)
    assert multilabel(encoder, data, val, epochs=2, lrs=(1.0,), workers=0) != turned[1]


def test_features_are_computed_once(encoder, sets, tmp_path, monkeypatch):
    calls = {"cache": tmp_path, "epochs": 1, "lrs": (1.0,), "workers": 0}
    first = multilabel(encoder, *sets, **calls)
    monkeypatch.setattr("care.evaluate.features.frozen_features", None)
    assert multilabel(encoder, *sets, **calls) == first
