"""Figures of maps and boxes beside the objects' masks, computed pixel by pixel."""

import numpy as np
import pytest
import torch
from care.evaluate.object_figures import TOP_MASS, figures_of, jaccard, top_mass
from care.evaluate.objects import Objects


def maps(count=3, *, seed=0):
    values = torch.rand(count, 12, 16, generator=torch.Generator().manual_seed(seed))
    return values / values.mean((1, 2), keepdim=True)


def objects_at(top, left, bottom, right):
    inside = torch.zeros(12, 16)
    inside[top:bottom, left:right] = 1
    return Objects(inside, torch.tensor([[left, top, right, bottom]]).float(), has_masks=True)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_the_top_mass_is_the_fewest_pixels_that_hold_it(share) -> None:
    for cam, kept in zip(maps(), top_mass(maps(), share), strict=True):
        order = sorted(cam.flatten().tolist(), reverse=True)
        total, count = 0.0, 0
        while total < share * sum(order) - 1e-5:
            total += order[count]
            count += 1
        assert int(kept.sum()) == count
        assert cam[kept].min() >= order[count - 1] - 1e-7


def test_where_all_energy_is_in_few_pixels_only_these_are_kept() -> None:
    cam = torch.zeros(1, 4, 4)
    cam[0, 1, 2] = 16
    assert top_mass(cam).nonzero().tolist() == [[0, 1, 2]]
    assert not top_mass(torch.zeros(1, 4, 4)).any()


def test_the_jaccard_index_is_the_intersection_over_the_union() -> None:
    first = torch.zeros(2, 4, 4, dtype=torch.bool)
    second = first.clone()
    first[0, :2] = True
    second[0, 1:, :2] = True
    assert jaccard(first, second).tolist() == pytest.approx([2 / 12, 0])


def test_the_figures_are_those_of_a_loop_over_pixels() -> None:
    cams = maps(2)
    shown = [objects_at(2, 3, 8, 9), objects_at(0, 0, 3, 16)]
    boxes = [torch.tensor([3.0, 2, 9, 9]), torch.tensor([0.0, 0, 8, 3])]
    figures = figures_of(cams, boxes, shown)
    for n, (cam, of_image) in enumerate(zip(cams.numpy(), shown, strict=True)):
        mask = of_image.inside.numpy() > 0
        assert figures.inside[n] == pytest.approx(cam[mask].sum() / cam.sum(), rel=1e-5)
        area = mask.sum() / 192
        assert figures.area[n] == pytest.approx(area)
        y, x = np.unravel_index(cam.argmax(), cam.shape)
        # 3 % of 16 px is less than half a pixel: the point has to be inside
        assert figures.pointing[n] == mask[y, x]
        assert figures.pointing_chance[n] == pytest.approx(area)
        flat = np.sort(cam.ravel())[::-1]
        count = int((np.cumsum(flat) - flat < TOP_MASS * flat.sum()).sum())
        kept = cam >= flat[count - 1]
        want = (kept & mask).sum() / (kept | mask).sum()
        assert figures.jaccard[n] == pytest.approx(want)
    # a box of 42 px around one of 36, and one of 24 px in one of 48
    assert figures.corloc.tolist() == [1, 1]
    assert figures.corloc_chance.tolist() == [0, 0]


def test_what_a_flat_map_has_is_what_chance_is() -> None:
    shown = [objects_at(2, 3, 8, 9)]
    frame = [torch.tensor([0.0, 0, 16, 12])]
    figures = figures_of(torch.ones(1, 12, 16), frame, shown)
    assert figures.inside == pytest.approx(figures.area)
    assert figures.pointing == pytest.approx(figures.pointing_chance)
    assert figures.corloc.equal(figures.corloc_chance)
    rng = np.random.default_rng(0)
    by_draw = []
    for _ in range(300):
        kept = torch.zeros(192, dtype=torch.bool)
        kept[rng.permutation(192)[: round(TOP_MASS * 192)]] = True
        by_draw.append(float(jaccard(kept.view(1, 12, 16), shown[0].inside[None] > 0)))
    assert float(figures.jaccard_chance) == pytest.approx(np.mean(by_draw), abs=0.01)
