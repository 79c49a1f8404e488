"""CMC: lightness and colours tell each other's place in a bank."""

import pytest
import torch
from flat import gathered
from naive import random_embeddings
from small_runs import SETTINGS, SIZE, make_streams
from test_bank import naive_softmax
from care import BYOL, CMC, CareError, CStream, Siamese, build_encoder
from care.evaluate import knn
from care.train import VIEWS, load_encoder, pretrain

SMALL = CMC(hidden=16, dim=8, images=24, negatives=9)
ENCODER = "lab:resnet18-small-half"


@pytest.mark.parametrize("views", [1, 2])
def test_the_loss_is_the_sum_of_both_directions(views):
    criterion = CMC(
        dim=14, images=12, negatives=12, temperature=0.3, contrast="softmax"
    ).criterion()
    criterion.double()
    banks = criterion.lightness, criterion.colour
    for bank in banks:
        bank.embeddings.copy_(torch.nn.functional.normalize(bank.embeddings, dim=1))
    lightness, colour = (bank.embeddings.clone() for bank in banks)
    samples = torch.tensor([7, 0, 3, 11, 4])
    online = random_embeddings(1, d=14, views=views)
    want = 0.0
    for view in online:
        halves = view.chunk(2, dim=1)
        want += naive_softmax(halves[0], colour, samples.tolist(), range(12), 0.3) / views
        want += naive_softmax(halves[1], lightness, samples.tolist(), range(12), 0.3) / views
    assert float(criterion(online, online, samples)) == pytest.approx(want, rel=1e-9)
    criterion.after_step()
    for bank, former, half in zip(banks, (lightness, colour), online[0].chunk(2, 1), strict=True):
        moved = 0.5 * former[samples] + 0.5 * torch.nn.functional.normalize(half, dim=1)
        directions = torch.nn.functional.normalize(moved, dim=1)
        torch.testing.assert_close(bank.embeddings[samples], directions)


def test_one_network_alone_is_refused():
    with pytest.raises(CareError, match=r"CMC compares what two encoders .*wanted an encoder such"):
        CStream(Siamese(build_encoder("resnet18-small-half")), SMALL)
    CStream(Siamese(build_encoder(ENCODER)), BYOL(hidden=8))  # which any objective may train


def test_more_views_are_refused():
    with pytest.raises(CareError, match=r"CMC learns from 1 view of an image, or 2 .*, got 3"):
        SMALL.check_views(3)


def test_both_networks_are_trained_saved_loaded_and_judged(data, tmp_path):
    c, _ = make_streams(encoder=ENCODER, objective=SMALL)
    pretrain(data, tmp_path, c, **gathered(SETTINGS | {"views": VIEWS[:1], "steps": 2}))
    weights = c.backbone.online.state_dict()
    for place in (tmp_path, tmp_path / "encoder.safetensors"):
        loaded = load_encoder(place)
        assert (loaded.name, loaded.size) == (ENCODER, SIZE)
        assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    judged = knn(loaded, data, data, size=SIZE, k=3)
    assert 0 <= judged.measures["top1"] <= 100
