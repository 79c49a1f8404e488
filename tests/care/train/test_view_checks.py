"""Views that cannot be cut, taken or learned from are refused in a line."""

import pytest
from flat import gathered
from small_runs import SETTINGS, make_streams
from torch import nn
from care import BYOL, CareError, SimSiam, SwAV
from care.train import VIEWS, View, pretrain
from care.train.view_checks import check_views
from care.train.views import multi_crop

SMALL = View(size=16, scale=(0.05, 0.14))
SWAV = SwAV(hidden=16, dim=8, prototypes=6)


def streams(objective=SWAV, *, with_t=True):
    c, t = make_streams(objective=objective)
    return c, t if with_t else None


@pytest.mark.parametrize(
    ("views", "objective", "message"),
    [
        ((*VIEWS, SMALL), BYOL(hidden=16), "BYOL learns from 2 views of an image, got 3; SwAV"),
        (VIEWS[:1], SimSiam(hidden=16, dim=8), "SimSiam learns from 2 views of an image, got 1"),
        (VIEWS[:1], SWAV, "SwAV learns from 2 views of an image and any number .*, got 1"),
        ((*VIEWS, View(patch=4)), SWAV, "got 2 and 1 of patches"),
        ((View(patch=4), *VIEWS), SWAV, "views of patches behind all others"),
        ((VIEWS[0], VIEWS[1]._replace(size=16)), SWAV, "two views of one size, got .* 32 and 16"),
        ((*VIEWS, View(scale=(0.5, 1.5))), SWAV, "view 3 is a crop of 0.5 to 1.5 of an image"),
        ((*VIEWS, View(scale=(0.0, 1.0))), SWAV, "view 3 is a crop of 0.0 to 1.0"),
        ((*VIEWS, View(scale=(0.9, 0.1))), SWAV, "wanted shares of its area, the least first"),
        ((*VIEWS, View(size=0)), SWAV, "view 3 has a side of 0 px"),
        ((*VIEWS, View(patch=11)), SWAV, "patches of 11 px, more than a third of its 32 px"),
    ],
)
def test_such_views_are_refused(views, objective, message):
    with pytest.raises(CareError, match=message):
        check_views(views, 32, *streams(objective))


def test_without_a_t_stream_the_first_two_views_may_differ_in_size():
    check_views((VIEWS[0], VIEWS[1]._replace(size=16)), 32, *streams(with_t=False))


def test_an_encoder_says_which_side_it_cannot_take():
    c, _ = streams()
    c.backbone.online.maxpool = nn.MaxPool2d(16)
    with pytest.raises(CareError, match=r"resnet18-small-half cannot take views of 16 px: .*size"):
        check_views((*VIEWS, SMALL), 32, c, None)


def test_a_training_is_refused_before_its_first_step(data, tmp_path):
    c, t = streams(BYOL(hidden=16))
    with pytest.raises(CareError, match="BYOL learns from 2 views"):
        pretrain(data, tmp_path / "run", c, t, **gathered(SETTINGS), views=multi_crop(View()))
    assert not (tmp_path / "run").exists()
