import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from torch import nn
from torchvision import transforms

import shards
from care import CareError, resnet18
from care.evaluate import extract
from care.evaluate.features import accuracy, centre_crop, same_classes
from care.evaluate.features import images as batches_of_images

SIZE = 32


def paper_transform(size):
    """torchvision's own, on images: resize the short side, central crop."""
    return transforms.Compose([transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)])


@pytest.fixture
def encoder():
    """In train mode, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, SIZE, SIZE))
    return network


# images


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (500, 332), (224, 400), (40, 40), (3, 90)])
def test_a_centre_crop_is_torchvisions(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    for side in (224, 33):
        ours = centre_crop(image, side)
        assert ours.size == (side, side)
        assert np.array_equal(np.asarray(ours), np.asarray(paper_transform(side)(image)))


def test_a_centre_crop_is_torchvisions_where_the_long_side_is_no_whole_number(make_image):
    for width in range(300, 330):
        image = make_image(width, (width, 211))
        assert np.array_equal(np.asarray(centre_crop(image, 96)), np.asarray(paper_transform(96)(image)))


def test_all_images_come_in_order_and_normalised(data):
    transform = transforms.Compose(
        [paper_transform(SIZE), transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    want = torch.stack([transform(data.image(i)) for i in range(24)])
    for workers in (0, 1):
        got = list(batches_of_images(data, size=SIZE, batch_size=7, workers=workers))
        assert [len(batch) for batch in got] == [7, 7, 7, 3]
        torch.testing.assert_close(torch.cat(got), want, rtol=0, atol=1e-6)


# features


def test_features_are_those_of_the_encoder_in_eval_mode_in_the_sets_order(encoder, data):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    features = extract(encoder, data, size=SIZE, batch_size=10)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert encoder.training
    assert not encoder.eval().training
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    with torch.no_grad():
        want = torch.cat([encoder(transform(paper_transform(SIZE)(data.image(i)))[None]).features for i in range(24)])
    torch.testing.assert_close(features.x, want, rtol=1e-4, atol=1e-5)
    assert features.y.tolist() == [int(sample.label) for sample in data]
    assert features.classes == 3
    extract(encoder, data, size=SIZE)
    assert not encoder.training


def test_features_can_train_a_classifier_of_the_callers(encoder, data):
    features = extract(encoder, data, size=SIZE)
    layer = nn.Linear(256, features.classes)
    nn.functional.cross_entropy(layer(features.x), features.y).backward()
    assert layer.weight.grad.abs().max() > 0
    assert not features.x.requires_grad


def test_the_mode_comes_back_after_a_failure(encoder, damaged_set):
    with pytest.raises(shards.ShardError, match=r"sample 13 .* is damaged"):
        extract(encoder, shards.open(damaged_set), size=SIZE)
    assert encoder.training


def build(folder, make_image, names):
    for n, name in enumerate(names):
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(file)
    shards.build(folder / "photos", folder / "set")
    return shards.open(folder / "set")


def test_a_set_without_classes_is_refused(encoder, make_image, tmp_path):
    flat = build(tmp_path, make_image, ["1.png", "2.png"])
    with pytest.raises(CareError, match="set has images without a class; evaluation needs a set built from class folders"):
        extract(encoder, flat, size=SIZE)


def test_sets_of_other_classes_are_refused(data, make_image, tmp_path):
    same_classes(data, data)
    other = build(tmp_path, make_image, ["bee/1.png", "dog/2.png"])
    with pytest.raises(CareError, match="must have the same classes; only one of them has: ant, cat, dog"):
        same_classes(data, other)


# accuracy


@pytest.mark.parametrize("classes", [6, 12])
def test_accuracy_is_sklearns(classes):
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(200, classes, generator=generator), torch.randint(classes, (200,), generator=generator)
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
