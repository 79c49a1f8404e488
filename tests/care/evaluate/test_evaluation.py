"""Accuracy of scores, and labels that mean the same."""

import pytest
import torch
from photo_sets import build
from sklearn.metrics import top_k_accuracy_score
from care import CareError
from care.evaluate.evaluation import accuracy, comparable


def test_classes_of_val_that_train_does_not_have_are_refused_by_name(data, make_image, tmp_path):
    other = build(tmp_path, make_image, ["bee/1.png", "cat/2.png", "emu/3.png"])
    with pytest.raises(CareError, match=r"have classes that .* not have: emu; it has ant, bee"):
        comparable(data, other)


def test_equal_names_are_equal_classes_whatever_their_order(data, make_image, tmp_path):
    assert comparable(data, data) == (data, data, "")
    fewer = build(tmp_path, make_image, ["cat/2.png", "bee/1.png"])
    val = comparable(data, fewer).val
    assert val.classes == data.classes
    classes = {key: val.classes[label] for key, label in zip(val.keys, val.labels, strict=True)}
    assert classes == {"bee/1": "bee", "cat/2": "cat"}
    assert [val[row].label for row in range(2)] == val.labels.tolist()


def test_images_without_a_class_are_left_out_and_told(make_image, tmp_path, capsys):
    names = ["bee/1.png", "bee/2.png", "dog/1.png", "u1.png", "u2.png"]
    partly = build(tmp_path, make_image, names, shard_size=2)
    sets = comparable(partly, partly)
    assert sorted(sets.train.keys) == ["bee/1", "bee/2", "dog/1"]
    assert [sets.train[row].key for row in range(3)] == sets.train.keys.tolist()
    assert sets.train.digest != partly.digest
    assert sets.train.labelled() is sets.train
    assert "2 of 5 images of set have no class and are left out" in sets.remark
    assert "2 of 5 images" in capsys.readouterr().err


def test_an_accuracy_that_cannot_differ_is_told(make_image, tmp_path):
    alone = build(tmp_path, make_image, ["bee/1.png", "bee/2.png"])
    assert "train has one class, bee: an accuracy says nothing" in comparable(alone, alone).remark


def test_a_set_without_any_class_is_refused(make_image, tmp_path):
    flat = build(tmp_path, make_image, ["1.png", "2.png"])
    with pytest.raises(CareError, match="set has no image with a class"):
        comparable(flat, flat)


@pytest.mark.parametrize("classes", [6, 12])
def test_accuracy_is_sklearns(classes):
    generator = torch.Generator().manual_seed(0)
    scores, labels = (
        torch.randn(200, classes, generator=generator),
        torch.randint(classes, (200,), generator=generator),
    )
    got = accuracy(scores, labels)
    for k, value in ((1, got.top1), (5, got.top5)):
        want = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=range(classes))
        assert value == pytest.approx(100 * want, abs=1e-3)
    assert 0 < got.top1 < got.top5 < 100


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_of_at_most_five_classes_there_is_no_top5(classes):
    scores = torch.eye(classes).roll(1, 1) if classes > 1 else torch.zeros(1, 1)
    got = accuracy(scores, torch.arange(classes))
    assert got == (100 if classes == 1 else 0, None)


@pytest.mark.parametrize(("labels", "said"), [([0, 3, 1], "0 to 3"), ([2, -1, 0], "-1 to 2")])
def test_a_label_that_is_no_class_is_refused(labels, said):
    with pytest.raises(CareError, match=f"wanted labels from 0 to 2, got some from {said}"):
        accuracy(torch.eye(3), torch.tensor(labels))
