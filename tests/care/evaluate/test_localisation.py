"""The pointing game and CorLoc, beside a search over all pixels and cells."""

from itertools import product
import pytest
import torch
from care.evaluate.localisation import (
    connected,
    discovered_box,
    finest_meaningful,
    fitting,
    near,
    pointing_hits,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_box(features: torch.Tensor, size: int) -> list[float]:
    """LOST cell by cell, in Python."""
    _, height, width = features.shape
    places = list(product(range(height), range(width)))
    centred = (features - features.mean()).double()
    vectors = {place: centred[:, place[0], place[1]] for place in places}
    likeness = {(a, b): float(vectors[a] @ vectors[b]) for a in places for b in places}
    degree = {a: sum(likeness[a, b] > 0 for b in places) for a in places}
    order = sorted(places, key=lambda place: degree[place])
    seed = order[0]
    candidates = order[: max(round(len(places) / 7), 1)]
    joined = [place for place in candidates if likeness[seed, place] > 0]
    region = {b for b in places if sum(likeness[a, b] for a in joined) > 0}
    component, edge = {seed}, [seed]
    while edge:
        y, x = edge.pop()
        for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if place in region and place not in component:
                component.add(place)
                edge.append(place)
    rows = [y for y, _ in component]
    columns = [x for _, x in component]
    cell = size / width
    return [v * cell for v in (min(columns), min(rows), max(columns) + 1, max(rows) + 1)]


@pytest.mark.parametrize("seed", range(20))
def test_the_box_is_that_of_a_search_cell_by_cell(seed: int) -> None:
    features = torch.randn(3, 6, 6, generator=generator(seed)).relu()
    torch.testing.assert_close(discovered_box(features, 48), torch.tensor(naive_box(features, 48)))


def test_an_object_unlike_its_surroundings_is_boxed() -> None:
    features = torch.zeros(2, 8, 8)
    features[0] = 1  # the surroundings
    features[0, 2:5, 4:6] = 0
    features[1, 2:5, 4:6] = 1
    assert discovered_box(features, 64).tolist() == [32, 16, 48, 40]


def test_an_object_is_boxed_in_pixels_of_an_image_that_is_not_square() -> None:
    features = torch.zeros(2, 4, 8)
    features[0] = 1
    features[0, 1:3, 4:6] = 0
    features[1, 1:3, 4:6] = 1
    # cells of 12 px of height and 20 of width
    assert discovered_box(features, "48x160").tolist() == [80, 12, 120, 36]


def test_a_map_without_differences_has_a_box_of_one_cell() -> None:
    assert discovered_box(torch.ones(4, 3, 3), 48).tolist() == [0, 0, 16, 16]


def test_cells_that_touch_at_corners_are_not_connected() -> None:
    region = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 0, 0]]).bool()
    start = torch.zeros(3, 3).bool()
    start[0, 2] = True
    want = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
    assert connected(region, start).equal(want)


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_near_is_within_the_distance_of_a_pixel_of_the_mask(tolerance: int) -> None:
    masks = torch.rand(2, 9, 11, generator=generator()) > 0.95
    masks[1, 0, 10] = True
    want = torch.zeros_like(masks)
    for n, y, x in product(range(2), range(9), range(11)):
        of_mask = masks[n].nonzero().tolist()
        want[n, y, x] = any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in of_mask)
    assert near(masks, tolerance).equal(want)


def test_a_point_hits_and_a_plateau_hits_in_part() -> None:
    maps = torch.zeros(4, 4, 4)
    maps[0, 1, 1] = 2
    maps[1, 3, 3] = 2
    maps[2, 0, :] = 2  # one of four pixels is on the target
    targets = torch.zeros(4, 4, 4).bool()
    targets[:, :2, 1] = True
    assert pointing_hits(maps, targets).tolist() == [1, 0, 0.25, 2 / 16]


def test_the_deepest_map_with_room_for_a_box_is_looked_at() -> None:
    maps = {side: torch.zeros(1, 1, side, side) for side in (24, 12, 6, 3)}
    by_name = {str(side): each for side, each in maps.items()}
    assert finest_meaningful(by_name) is by_name["6"]
    assert finest_meaningful({"3": maps[3], "2": maps[3][..., :2, :2]}) is maps[3]


def test_a_box_fits_where_half_of_it_and_an_object_is_shared() -> None:
    frame = torch.tensor([0.0, 0, 32, 32])
    objects = [torch.tensor([[0.0, 0, 4, 4], [0, 0, 32, 17]]), torch.zeros(0, 4)]
    assert fitting([frame, frame], objects).tolist() == [1, 0]
    assert fitting([frame], [torch.tensor([[0.0, 0, 32, 15]])]).tolist() == [0]
