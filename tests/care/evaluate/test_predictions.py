"""What a classifier leaves of its predictions, beside scikit-learn's figures."""

import csv
import io
import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score
from care.evaluate import Predictions
from care.evaluate.finetune import share_text
from care.evaluate.predictions import rank_classes

CLASSES = ("ant", "bee, wild", "cat", "dog", "eel", "fox", "gnu")


def draw(classes, count=60, seed=0):
    """Scores of images whose classes differ in number, and of a class without an image."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes - 1, count, p=generator.dirichlet(np.ones(classes - 1) * 5))
    scores = generator.normal(size=(count, classes))
    scores[np.arange(count), labels] += 1
    keys = np.array([f"photos/{row}" for row in range(count)], np.dtypes.StringDType())
    ranking = rank_classes(torch.from_numpy(scores))
    return Predictions(ranking, torch.from_numpy(labels), CLASSES[:classes], keys), scores


def table(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_balanced_accuracy_and_that_of_each_class_are_sklearns():
    predictions, scores = draw(7)
    labels = predictions.labels.numpy()
    got = predictions.measures()
    assert got.keys() == {"top1", "top5", "balanced"}
    balanced = balanced_accuracy_score(labels, scores.argmax(1))
    assert got["balanced"] == pytest.approx(100 * balanced, abs=1e-3)
    assert got["balanced"] != got["top1"]
    recalls = recall_score(labels, scores.argmax(1), average=None, labels=range(6))
    # the seventh class has no image
    assert list(predictions.by_class()) == list(CLASSES[:6])
    assert list(predictions.by_class().values()) == pytest.approx(100 * recalls, abs=1e-3)


def test_there_is_no_balanced_accuracy_where_classes_have_equal_numbers():
    labels = torch.arange(6)
    keys = np.array([str(row) for row in range(6)], np.dtypes.StringDType())
    predictions = Predictions(rank_classes(torch.eye(6)), labels, CLASSES[:6], keys)
    assert predictions.measures() == {"top1": 100.0, "top5": 100.0}


@pytest.mark.parametrize("classes", [2, 5])
def test_few_classes_have_no_top5(classes):
    assert "top5" not in draw(classes)[0].measures()


def test_figures_are_round_in_decimals():
    keys = np.array([str(row) for row in range(75)], np.dtypes.StringDType())
    labels = torch.arange(75) >= 24
    ranking = rank_classes(torch.tensor([[1.0, 0.0]] * 75))
    assert Predictions(ranking, labels.long(), ("a", "b"), keys).measures()["top1"] == 32.0


def test_the_confusion_has_every_pair_once():
    predictions, scores = draw(7)
    want = confusion_matrix(predictions.labels, scores.argmax(1), labels=range(7))
    got = np.zeros_like(want)
    for row in table(predictions.files()["confusion.csv"]):
        got[CLASSES.index(row["class"]), CLASSES.index(row["prediction"])] += int(row["images"])
    assert (got == want).all()


def test_every_image_is_named_with_its_class_and_its_predictions():
    predictions, scores = draw(7)
    rows = table(predictions.files()["predictions.csv"])
    assert [row["key"] for row in rows] == predictions.keys.tolist()
    assert [CLASSES.index(row["class"]) for row in rows] == predictions.labels.tolist()
    columns = ("prediction", *(f"prediction{place}" for place in range(2, 6)))
    ranked = [[CLASSES.index(row[column]) for column in columns] for row in rows]
    assert ranked == np.argsort(-scores, 1)[:, :5].tolist()


@pytest.mark.parametrize(
    ("count", "of", "text"),
    [
        (4, 240, "1.7 %"),
        (24, 240, "10 %"),
        (12_811, 1_281_167, "1 %"),
        (128_116, 1_281_167, "10 %"),
        (1, 8, "12.5 %"),
        (3, 10_000, "0.03 %"),
        (7, 7, "100 %"),
    ],
)
def test_a_share_of_the_labels_is_what_it_is(count, of, text):
    assert share_text(count / of) == text
