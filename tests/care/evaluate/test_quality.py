import numpy as np
import pytest
import torch
import shards
from care import CareError, build_encoder
from care.evaluate import quality, quality_probe
from care.evaluate.images import NO_EPOCH, centre_crops
from care.evaluate.quality import draw_rows, see_images
from care.train.photometrics import apply_photometrics, crop
from care.train.views import VIEWS

SIZE = 16


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("resnet18-small-half")


def test_its_measures_are_of_the_features_that_it_sees(encoder, data):
    found = quality(encoder, data, size=SIZE, k=3)
    seen = see_images(encoder, data, np.arange(24), size=SIZE, views=4)
    assert seen.centre.shape == (24, encoder.features)
    assert seen.views.shape == (24, 4, encoder.features)
    assert [*found.measures] == ["agreement", "rankme", "lidar", "alignment", "uniformity"]
    assert found.task == "label-free quality"
    assert "by chance 13.0 %" in found.protocol
    assert not found.resampled
    first, second = seen.views[:, 0], seen.views[:, 1]
    apart = torch.nn.functional.normalize(first) - torch.nn.functional.normalize(second)
    assert found.measures["alignment"] == pytest.approx(float(apart.norm(dim=1).square().mean()))


def test_what_it_sees_are_centre_crops_and_the_papers_views(encoder, data):
    rows = np.array([3, 20])
    seen = see_images(encoder, data, rows, size=SIZE, views=3, seed=5)
    (crops,) = centre_crops(data, [[3, 20]], size=SIZE)
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(seen.centre, encoder(crops).features)
        for number, view in enumerate((VIEWS[0], VIEWS[1], VIEWS[0])):
            for place, row in enumerate((3, 20)):
                parameters = view.draw(5, NO_EPOCH, row, number)
                pixels = torch.from_numpy(crop(np.array(data.image(row)), parameters, SIZE))[None]
                image = apply_photometrics(pixels, torch.from_numpy(parameters.colour)[None])
                torch.testing.assert_close(seen.views[place, number][None], encoder(image).features)


def test_it_changes_no_argument_and_no_global_state(encoder, data, untouched_generator):
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with untouched_generator():
        first = quality(encoder, data, size=SIZE)
        again = quality(encoder, data, size=SIZE, workers=1)
    assert encoder.training
    assert first == again
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert quality(encoder, data, size=SIZE, seed=1).measures != first.measures


def test_it_reads_no_label(encoder, image_set, tmp_path):
    """A set of the same images without classes has the same figures."""
    data = shards.open(image_set)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(6):
        data.image(number).save(flat / f"{number}.png")
    unlabelled = shards.open(shards.build(flat, tmp_path / "set", workers=1).path)
    assert (unlabelled.labels < 0).all()
    assert quality(encoder, unlabelled, size=SIZE).measures["agreement"] == 100  # k is 5 of 5


def test_a_probe_has_the_figures_of_the_evaluation(encoder, data):
    probe = quality_probe(data, size=SIZE, seed=2)
    assert probe(encoder) == quality(encoder, data, size=SIZE, seed=2).measures


def test_few_images_are_drawn_of_many_by_the_seed_alone():
    rows = draw_rows(1000, 50, seed=0)
    assert len({*rows.tolist()}) == 50
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() == draw_rows(1000, 50, seed=0).tolist()
    assert rows.tolist() != draw_rows(1000, 50, seed=1).tolist()
    assert draw_rows(7, 50, seed=0).tolist() == [*range(7)]


def test_a_single_image_is_refused(encoder, tmp_path, make_image):
    (tmp_path / "photos").mkdir()
    make_image(0).save(tmp_path / "photos" / "1.png")
    shards.build(tmp_path / "photos", tmp_path / "set", workers=1)
    with pytest.raises(CareError, match="at least 2 images"):
        quality(encoder, shards.open(tmp_path / "set"), size=SIZE)
