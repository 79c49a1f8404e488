import re
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from care.evaluate.features import Features
from care.show.embedding import HEIGHT, MOST, WIDTH, embedding, principal_plane, scatter


def features_of(count: int, classes: int, dim: int = 6) -> Features:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes if classes else torch.full((count,), -1)
    centres = torch.randn(max(classes, 1), dim, generator=generator)
    x = centres[labels.clamp_min(0)] + 0.3 * torch.randn(count, dim, generator=generator)
    return Features(x, labels, classes)


def names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


def marks(path: str) -> list[tuple[float, float]]:
    """The points at which marks begin."""
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.-]+),([\d.-]+)", path)]


def test_the_plane_is_that_of_scikit_learn() -> None:
    x = features_of(50, 3).x
    units = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    reference = PCA(2).fit(units)
    plane = principal_plane(x)
    np.testing.assert_allclose(plane.explained, reference.explained_variance_ratio_, rtol=1e-6)
    # a direction may point either way
    expected = reference.transform(units)
    np.testing.assert_allclose(plane.coordinates.abs(), np.abs(expected), atol=1e-6)


def test_the_sign_does_not_depend_on_the_order_of_the_images() -> None:
    x = features_of(40, 2).x
    turned = principal_plane(x.flip(0)).coordinates.flip(0)
    torch.testing.assert_close(principal_plane(x).coordinates, turned)


def test_equal_features_and_features_of_one_number_are_placed() -> None:
    equal = principal_plane(torch.ones(5, 3))
    assert torch.equal(equal.coordinates, torch.zeros(5, 2, dtype=torch.float64))
    assert equal.explained == (0, 0)
    line = principal_plane(torch.tensor([[1.0], [-1.0]]))
    assert line.coordinates[:, 1].tolist() == [0, 0]
    assert line.explained == (1, 0)
    for plane in (equal, line):
        content = {"points": plane.coordinates.tolist(), "explained": plane.explained}
        content |= {"labels": [0] * len(plane.coordinates), "classes": ["a"], "encoder": "CARE"}
        assert scatter(content).images == len(plane.coordinates)


def test_every_image_has_a_mark_inside_of_the_drawing() -> None:
    content = embedding("CARE", features_of(90, 3), names(3))
    drawing = scatter(content)
    assert [(cloud.name, cloud.images) for cloud in drawing.clouds] == [
        ("class 0", 30),
        ("class 1", 30),
        ("class 2", 30),
    ]
    assert not drawing.rest
    places = [place for cloud in drawing.clouds for place in marks(cloud.path)]
    assert len(places) == 90
    xs, ys = zip(*places, strict=True)
    assert min(xs) >= 0
    assert max(xs) <= WIDTH
    assert min(ys) >= 0
    assert max(ys) <= HEIGHT
    assert "90 images" in drawing.description
    assert "class 1 30" in drawing.description


def test_one_scale_serves_both_directions() -> None:
    content = embedding("CARE", features_of(60, 2), names(2))
    content["labels"] = [0] * 60
    (cloud,) = scatter(content).clouds
    drawn = np.array(marks(cloud.path))
    points = np.array(content["points"])
    spans = drawn.max(0) - drawn.min(0)
    ratios = spans / (points.max(0) - points.min(0))
    assert ratios[0] == pytest.approx(ratios[1], rel=0.01)
    # upward on the page is upward in the plane
    assert np.corrcoef(drawn[:, 1], points[:, 1])[0, 1] == pytest.approx(-1, abs=1e-4)


def test_classes_beyond_eight_are_drawn_as_the_rest() -> None:
    drawing = scatter(embedding("CARE", features_of(220, 11), names(11)))
    assert [cloud.name for cloud in drawing.clouds][-2:] == ["class 7", "3 other classes"]
    assert drawing.rest
    assert sum(cloud.images for cloud in drawing.clouds) == 220
    nine = scatter(embedding("CARE", features_of(90, 9), names(9)))
    assert nine.clouds[-1].name == "1 other class"


def test_images_without_classes_are_drawn_without_colours() -> None:
    drawing = scatter(embedding("CARE", features_of(20, 0), []))
    assert [(cloud.name, cloud.images) for cloud in drawing.clouds] == [
        ("images without classes", 20)
    ]
    assert drawing.rest


def test_of_many_images_evenly_spaced_ones_are_drawn() -> None:
    content = embedding("CARE", features_of(2 * MOST + 1, 2), names(2))
    assert len(content["points"]) == len(content["labels"]) == MOST
    # every second image would be of one class, were the spacing exactly two
    assert {*content["labels"]} == {0, 1}
