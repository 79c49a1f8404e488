"""Trainings with more than two views: small crops behind the two that both streams see."""

import pytest
import torch
from flat import gathered
from small_runs import SETTINGS, SIZE, STEPS, CrashError, crash, make_streams, result, rows
from care import SwAV, care_loss
from care.train import VIEWS, View, batches, pretrain
from care.train.views import multi_crop

VIEWS_OF_FOUR = multi_crop(View(), small_size=8, count=2)
OBJECTIVE = SwAV(hidden=16, dim=8, prototypes=6, frozen_steps=2, queue=16, queue_from=1)


def train(data, run, *, with_t=True):
    c, t = make_streams(objective=OBJECTIVE)
    settings = gathered(SETTINGS | {"views": VIEWS_OF_FOUR})
    pretrain(data, run, c, t if with_t else None, **settings)


def test_the_losses_are_those_of_the_plain_loop(data, tmp_path):
    train(data, tmp_path)
    c, t = make_streams(objective=OBJECTIVE)
    stream = batches(data, size=SIZE, batch_size=8, steps=STEPS, views=VIEWS_OF_FOUR)
    _, views = next(stream)
    c_out = c(*views)
    loss = care_loss(c_out, t(c_out.maps), attention_weight=100)
    first = rows(tmp_path)[0]
    for name in ("cnn", "transformer", "attention", "total"):
        assert first[name] == pytest.approx(float(getattr(loss, name).detach()), rel=1e-5)
    assert len(c_out.online) == 4
    assert len(c_out.target) == len(c_out.maps.online) == 2


def test_a_run_that_was_broken_off_ends_with_the_same_bits(data, tmp_path, at_step):
    train(data, tmp_path / "whole", with_t=False)
    at_step(3, crash)
    with pytest.raises(CrashError):
        train(data, tmp_path / "broken", with_t=False)
    at_step(-1, crash)
    train(data, tmp_path / "broken", with_t=False)
    assert result(tmp_path / "broken") == result(tmp_path / "whole")


def test_small_crops_train_neither_target_nor_transformer():
    """The T-stream's loss and Eq. 4 are those of the first two views."""
    c, t = make_streams(objective=OBJECTIVE)
    c.double(), t.double()
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 4, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    small = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    c.eval(), t.eval()
    with_small, without = c(*pair, small), c(*pair)
    for one, other in ((with_small.maps.online, without.maps.online),):
        assert all(map(torch.equal, one, other))
    losses = [care_loss(out, t(out.maps)) for out in (with_small, without)]
    assert torch.equal(losses[0].transformer, losses[1].transformer)
    assert torch.equal(losses[0].attention, losses[1].attention)
    assert not torch.equal(losses[0].cnn, losses[1].cnn)


def test_a_run_records_its_small_crops_and_goes_on_with_no_others(data, tmp_path):
    from care import CareError

    train(data, tmp_path, with_t=False)
    c, _ = make_streams(objective=OBJECTIVE)
    with pytest.raises(CareError, match="views="):
        pretrain(data, tmp_path, c, **gathered(SETTINGS | {"views": VIEWS}))
