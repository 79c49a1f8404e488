"""Trainings with other views than two of an image: small crops, patches, lightness and colour."""

import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, SIZE, CrashError, crash, make_streams, result, rows
from care import CMC, PIRL, CareError, InfoMin, SwAV, care_loss
from care.train import VIEWS, View, batches, pretrain
from care.train.views import multi_crop

FOUR = multi_crop(View(), small_size=8, count=2)
PUZZLE = View(size=24, patch=8, scale=(0.6, 1.0), jitter_p=0, blur_p=0, gray_p=0)
SWAV = SwAV(hidden=16, dim=8, prototypes=6, frozen_steps=2, queue=16, queue_from=1)
ONE_NETWORK, TWO_NETWORKS = "resnet18-small-half", "lab:resnet18-small-half"
# encoder, objective, views, and whether there is a T-stream
RUNS = {
    "SwAV": (ONE_NETWORK, SWAV, FOUR, False),
    "SwAV with the T-stream": (ONE_NETWORK, SWAV, FOUR, True),
    "PIRL": (
        ONE_NETWORK,
        PIRL(hidden=16, dim=8, images=24, negatives=9),
        (VIEWS[0], PUZZLE),
        False,
    ),
    "PIRL with the T-stream": (
        ONE_NETWORK,
        PIRL(hidden=16, dim=8, images=24, contrast="softmax"),
        (*VIEWS, PUZZLE),
        True,
    ),
    "InfoMin": (ONE_NETWORK, InfoMin(hidden=16, dim=8, queue=16), (*VIEWS, PUZZLE), False),
    "CMC": (TWO_NETWORKS, CMC(hidden=16, dim=8, images=24, negatives=9), VIEWS[:1], False),
    "CMC with the T-stream": (TWO_NETWORKS, CMC(hidden=16, dim=8, images=24), VIEWS, True),
}


def train(data, run, *, kind="SwAV", steps=4):
    encoder, objective, views, with_t = RUNS[kind]
    c, t = make_streams(encoder=encoder, objective=objective)
    settings = gathered(SETTINGS | {"views": views, "steps": steps})
    pretrain(data, run, c, t if with_t else None, **settings)


# those of fewer views and seams are left to the long session
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind == "PIRL with the T-stream" else pytest.mark.resume)
        for kind in RUNS
    ],
)
def test_a_run_that_was_broken_off_ends_with_the_same_bits(data, tmp_path, at_step, kind):
    train(data, tmp_path / "whole", kind=kind)
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path / "broken", kind=kind)
    at_step(-1, crash)
    train(data, tmp_path / "broken", kind=kind)
    assert result(tmp_path / "broken") == result(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["SwAV with the T-stream", "PIRL with the T-stream"])
def test_the_losses_are_those_of_the_plain_loop(data, tmp_path, kind):
    train(data, tmp_path, kind=kind, steps=1)
    encoder, objective, views, _ = RUNS[kind]
    c, t = make_streams(encoder=encoder, objective=objective)
    _, batch = next(batches(data, size=SIZE, batch_size=8, steps=1, views=views))
    c_out = c(*batch, samples=batch.samples)
    loss = care_loss(c_out, t(c_out.maps), attention_weight=100)
    first = rows(tmp_path)[0]
    for name in ("cnn", "transformer", "attention", "total"):
        assert first[name] == pytest.approx(float(getattr(loss, name).detach()), rel=1e-5)
    assert len(c_out.online) == len(views)
    assert len(c_out.target) == len(c_out.maps.online) == 2


def test_small_crops_train_neither_target_nor_transformer():
    """The T-stream's loss and Eq. 4 are those of the first two views."""
    c, t = make_streams(objective=SWAV)
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 4, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    small = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    for stream in (c, t):
        stream.double().eval()
    with_small, without = c(*pair, small), c(*pair)
    losses = [care_loss(out, t(out.maps)) for out in (with_small, without)]
    assert torch.equal(losses[0].transformer, losses[1].transformer)
    assert torch.equal(losses[0].attention, losses[1].attention)
    assert not torch.equal(losses[0].cnn, losses[1].cnn)


def test_a_run_goes_on_with_no_other_views(data, tmp_path):
    train(data, tmp_path)
    c, _ = make_streams(objective=SWAV)
    with pytest.raises(CareError, match=r"views=.*'size': 8"):
        pretrain(data, tmp_path, c, **gathered(SETTINGS | {"views": VIEWS, "steps": 4}))
