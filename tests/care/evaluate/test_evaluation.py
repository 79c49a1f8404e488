"""Accuracy of scores, and labels that mean the same."""

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
import shards
from care import CareError
from care.evaluate.evaluation import accuracy, check_same_classes


def build(folder, make_image, names, broken=(), **options):
    for n, name in enumerate(names):
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(file)
        if name in broken:
            file.write_bytes(file.read_bytes()[:-200])
    shards.build(folder / "photos", folder / "set", workers=1, **options)
    return shards.open(folder / "set")


def test_sets_of_other_classes_are_refused(data, make_image, tmp_path):
    check_same_classes(data, data)
    other = build(tmp_path, make_image, ["bee/1.png", "dog/2.png"])
    with pytest.raises(
        CareError, match="must have the same classes; only one of them has: ant, cat, dog"
    ):
        check_same_classes(data, other)


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
        assert value == pytest.approx(100 * want, abs=1e-4)
    assert 0 < got.top1 < got.top5 < 100


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_the_first_five_of_at_most_five_classes_are_all(classes):
    scores = torch.eye(classes).roll(1, 1) if classes > 1 else torch.zeros(1, 1)
    got = accuracy(scores, torch.arange(classes))
    assert got == (100 if classes == 1 else 0, 100)


@pytest.mark.parametrize(("labels", "said"), [([0, 3, 1], "0 to 3"), ([2, -1, 0], "-1 to 2")])
def test_a_label_that_is_no_class_is_refused(labels, said):
    with pytest.raises(CareError, match=f"wanted labels from 0 to 2, got some from {said}"):
        accuracy(torch.eye(3), torch.tensor(labels))
