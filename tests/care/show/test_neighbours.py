"""Nearest neighbours of images, as numbers and as a picture."""

import io
import numpy as np
import torch
from PIL import Image
from care.evaluate.neighbours import Neighbours
from care.show.neighbours import (
    Query,
    nearest_of_rows,
    neighbour_sheet,
    query_of,
    rows_of_keys,
    spread_rows,
)


def naive(x, row, k):
    """Every other image, by falling cosine."""
    unit = x / x.norm(dim=1, keepdim=True)
    cosines = [(-float(unit[row] @ unit[n]), n) for n in range(len(x)) if n != row]
    return sorted(cosines)[:k]


def test_no_image_is_its_own_neighbour():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    got = nearest_of_rows(x, [3, 17], 5)
    for number, row in enumerate((3, 17)):
        expected = naive(x, row, 5)
        assert got.rows[number].tolist() == [n for _, n in expected]
        assert np.allclose(got.cosines[number], [-cosine for cosine, _ in expected], atol=1e-6)


def test_equal_images_are_neighbours_of_each_other():
    x = torch.ones(5, 4)
    x[4] = torch.tensor([1.0, 0, 0, 0])
    # the first rows count as nearer: the last of the equal ones is not even among them
    assert nearest_of_rows(x, [0, 3], 2).rows.tolist() == [[1, 2], [0, 1]]
    assert nearest_of_rows(x, [0], 99).rows.tolist() == [[1, 2, 3, 4]]


def test_rows_are_spread_over_a_set():
    assert spread_rows(100, 5) == [10, 30, 50, 70, 90]
    assert spread_rows(3, 6) == [0, 1, 2]


def test_keys_lead_to_rows(data):
    keys = data.keys.tolist()
    assert rows_of_keys(data, keys[::-1]).tolist() == [*range(len(data))][::-1]


def test_the_picture_has_a_row_for_each_query(data):
    queries = [query_of(data, 0), Query(Image.new("RGB", (64, 32), (255, 0, 0)), "mine.jpg")]
    same = int((data.labels == data.labels[0]).nonzero()[0][1])
    other = int((data.labels != data.labels[0]).nonzero()[0][0])
    neighbours = Neighbours(
        torch.tensor([[0.9, 0.5], [0.2, 0.1]]), torch.tensor([[same, other], [1, 2]])
    )
    sheet = Image.open(io.BytesIO(neighbour_sheet(data, queries, neighbours)))
    pixels = np.asarray(sheet.convert("RGB"))
    # the frames of the first row, and none in the second, whose query has no class
    assert tuple(pixels[27, 155]) == (20, 120, 60)
    assert tuple(pixels[27, 291]) == (190, 60, 20)
    second = 26 + 128 + 46
    assert tuple(pixels[second + 60, 60]) == (255, 0, 0)
    framed = [(20, 120, 60), (190, 60, 20)]
    assert tuple(pixels[second + 1, 155]) not in framed
