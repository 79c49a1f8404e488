"""PIRL and InfoMin: what they learn of shuffled patches."""

import pytest
import torch
from flat import gathered
from naive import random_embeddings
from small_runs import SETTINGS, make_streams
from test_bank import naive_softmax
from test_moco import naive_contrast
from care import PIRL, CareError, CStream, InfoMin, Siamese, care_loss
from care.objectives.puzzle_head import PuzzleHead
from care.train import VIEWS, View, pretrain

PUZZLE = View(size=24, patch=8, scale=(0.6, 1.0), jitter_p=0, blur_p=0, gray_p=0)
SMALL = PIRL(hidden=16, dim=8, images=24, negatives=9)


@pytest.mark.parametrize("images", [1, 2])
def test_pirl_tells_image_and_patches_from_others_in_the_bank(images):
    objective = PIRL(
        dim=7, images=12, negatives=12, temperature=0.3, patches_weight=0.25, contrast="softmax"
    )
    criterion = objective.criterion().double()
    criterion.bank.embeddings.copy_(torch.nn.functional.normalize(criterion.bank.embeddings, dim=1))
    samples = torch.tensor([7, 0, 3, 11, 4])
    rows = criterion.bank.embeddings.clone()
    online = random_embeddings(1, views=images + 1)
    terms = [naive_softmax(view, rows, samples.tolist(), range(12), 0.3) for view in online]
    want = 0.75 * sum(terms[:images]) / images + 0.25 * terms[-1]
    got = criterion(online, online[:images], samples)
    assert float(got) == pytest.approx(want, rel=1e-9)
    # and the bank follows the first view, once the step is taken
    assert torch.equal(criterion.bank.embeddings, rows)
    criterion.after_step()
    moved = 0.5 * rows[samples] + 0.5 * torch.nn.functional.normalize(online[0], dim=1)
    directions = torch.nn.functional.normalize(moved, dim=1)
    torch.testing.assert_close(criterion.bank.embeddings[samples], directions)
    rest = [number for number in range(12) if number not in samples]
    assert torch.equal(criterion.bank.embeddings[rest], rows[rest])


def test_infomin_tells_the_key_by_a_view_and_by_patches():
    criterion = InfoMin(dim=7, queue=20, patches_weight=0.25).criterion().double()
    queue = torch.nn.functional.normalize(criterion.queue.keys, dim=1)
    criterion.queue.keys.copy_(queue)
    online, target = random_embeddings(1, views=3), random_embeddings(2)
    want = 0.75 * naive_contrast(online[0], target[1], queue, 0.15)
    want += 0.25 * naive_contrast(online[2], target[1], queue, 0.15)
    assert float(criterion(online, target)) == pytest.approx(want, rel=1e-9)
    criterion.after_step()
    newest = torch.nn.functional.normalize(target[1], dim=1)
    torch.testing.assert_close(criterion.queue.keys[:5], newest)


def test_the_head_of_patches_puts_them_together_in_their_order():
    head = PuzzleHead(torch.nn.Linear(6, 4), 4).double()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64)
    want = []
    for image in features:
        row = torch.cat([head.patch_head(patch) for patch in image])
        want.append(head.together.weight @ row + head.together.bias)
    torch.testing.assert_close(head(features), torch.stack(want))
    assert not torch.allclose(head(features.flip(1)), torch.stack(want))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (PIRL(images=24), "PIRL learns from 1 view of an image, or 2 .*, got 2;"),
        (InfoMin(), "InfoMin learns from 2 views of an image and 1 of its patches, got 2;"),
    ],
)
def test_without_patches_they_are_refused(objective, message):
    with pytest.raises(CareError, match=message):
        objective.check_views(2)


def test_a_bank_wants_the_numbers_of_the_images():
    c = CStream(Siamese(make_streams()[0].backbone.online), SMALL)
    views = (torch.randn(2, 3, 32, 32), torch.randn(2, 9, 3, 8, 8))
    with pytest.raises(CareError, match=r"PIRL keeps an embedding .*samples=views\.samples"):
        c(*views)
    c_out = c(*views, samples=torch.tensor([3, 5]))
    assert care_loss(c_out).total.isfinite()


def test_a_bank_of_another_set_is_refused_before_the_first_step(data, tmp_path):
    c, _ = make_streams(objective=PIRL(hidden=16, dim=8, images=25))
    settings = gathered(SETTINGS | {"views": (VIEWS[0], PUZZLE)})
    with pytest.raises(CareError, match=r"a bank of 25 images .* this one has 24"):
        pretrain(data, tmp_path / "run", c, **settings)


def test_a_t_stream_wants_two_views_of_the_image(data, tmp_path):
    c, t = make_streams(objective=SMALL)
    settings = gathered(SETTINGS | {"views": (VIEWS[0], PUZZLE)})
    with pytest.raises(CareError, match="the T-stream compares two views of an image, got 1"):
        pretrain(data, tmp_path / "run", c, t, **settings)
