"""Where an encoder puts images: the plane of its features in which they differ most (PCA)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.evaluate.features import Features

FILE = "embedding.json"
# images that are drawn at most: more would cover each other
MOST = 1000
# classes that have a colour and a mark of their own; the rest are drawn small and gray
MARKED_CLASSES = 8
# px of the drawing, which is scaled to the page's width, and left free around the points
WIDTH, HEIGHT, MARGIN = 640, 400, 12
# marks as SVG paths that begin at a point: circle, square, diamond, triangle
_MARKS = (
    "m-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
    "m-3,-3h6v6h-6z",
    "m0,-4.5l4.5,4.5l-4.5,4.5l-4.5,-4.5z",
    "m0,-4.2l4.2,7.2h-8.4z",
)
_SMALL_MARK = "m-2,0a2,2 0 1,0 4,0a2,2 0 1,0 -4,0z"


class PrincipalPlane(NamedTuple):
    """The two directions in which features differ most.

    Attributes:
        coordinates: of every image along them.
        explained: shares of the features' variance that lie along them, from 0 to 1.
    """

    coordinates: Float[Tensor, "n 2"]
    explained: tuple[float, float]


class Cloud(NamedTuple):
    """The images of a class in a drawing.

    Attributes:
        name: of the class; of classes without a colour, how many they are.
        images: how many are drawn.
        path: their marks, as the ``d`` of an SVG path.
        sample: one mark for the legend.
    """

    name: str
    images: int
    path: str
    sample: str


class Scatter(NamedTuple):
    """The plane as a drawing.

    Attributes:
        clouds: the classes with the most images first; the last may be the rest of them.
        rest: whether the last cloud is that of classes without a colour.
        encoder: whose features these are.
        images: how many are drawn.
        explained: shares of the variance, in per cent.
        description: the drawing in words, for those who do not see it.
    """

    clouds: list[Cloud]
    rest: bool
    encoder: str
    images: int
    explained: tuple[float, float]
    description: str


def principal_plane(features: Float[Tensor, "n d"]) -> PrincipalPlane:
    """Find the plane in which features of length one differ most.

    Args:
        features: rows of any length but 0; at least two.

    Returns:
        Coordinates whose means are 0. A direction's sign is that in which its largest entry is
        positive.
    """
    units = nn.functional.normalize(features.double(), dim=1)
    centred = units - units.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square()
    plane = torch.zeros(2, features.shape[1], dtype=torch.float64)
    shares = [0.0, 0.0]
    for number in range(min(2, len(directions))):
        direction = directions[number]
        largest = direction[direction.abs().argmax()]
        plane[number] = direction * largest.sign()
        shares[number] = float(variances[number] / variances.sum().clamp_min(1e-30))
    return PrincipalPlane(centred @ plane.T, (shares[0], shares[1]))


def embedding(encoder: str, features: Features, classes: Sequence[str]) -> dict[str, Any]:
    """Place images in the plane in which their features differ most, for a page.

    Args:
        encoder: its name on the page.
        features: of at least two images; of more than ``MOST``, evenly spaced ones are placed.
        classes: names by number; none where the images have no classes.

    Returns:
        JSON: the points, their classes by number, -1 without one, and what is said of them.
    """
    count = min(len(features.x), MOST)
    rows = torch.linspace(0, len(features.x) - 1, count).round().long()
    plane = principal_plane(features.x[rows])
    return {
        "encoder": encoder,
        "classes": list(classes),
        "explained": [round(share, 4) for share in plane.explained],
        "labels": features.y[rows].tolist(),
        "points": [[round(x, 3), round(y, 3)] for x, y in plane.coordinates.tolist()],
    }


def scatter(content: Mapping[str, Any]) -> Scatter:
    """Draw what ``embedding`` has placed.

    Args:
        content: JSON as of ``embedding``.
    """
    places = _places(content["points"])
    counts = Counter(content["labels"])
    # of equal counts the class with the lower number is first
    ordered = sorted(counts, key=lambda label: (-counts[label], label))
    marked = [label for label in ordered if label >= 0][:MARKED_CLASSES]
    clouds = []
    for number, label in enumerate(marked):
        mark = _MARKS[number % len(_MARKS)]
        of_class = _places_of(places, content["labels"], {label})
        clouds.append(_cloud(content["classes"][label], of_class, mark))
    others = {label for label in ordered if label not in marked}
    if others:
        of_others = _places_of(places, content["labels"], others)
        clouds.append(_cloud(_name_of_rest(others, marked), of_others, _SMALL_MARK))
    first, second = (round(100 * share, 1) for share in content["explained"])
    description = (
        f"{len(places):,} images as points in the two directions in which their features by"
        f" {content['encoder']} differ most; by class: "
        + ", ".join(f"{cloud.name} {cloud.images}" for cloud in clouds)
    )
    return Scatter(
        clouds, bool(others), content["encoder"], len(places), (first, second), description
    )


def _places(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Points in px, with one scale for both directions and the middle in the middle."""
    xs, ys = zip(*points, strict=True)
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    scale = min(
        (WIDTH - 2 * MARGIN) / (width or 1),
        (HEIGHT - 2 * MARGIN) / (height or 1),
    )
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [
        (WIDTH / 2 + (x - middle_x) * scale, HEIGHT / 2 - (y - middle_y) * scale) for x, y in points
    ]


def _places_of(
    places: Sequence[tuple[float, float]], labels: Sequence[int], wanted: set[int]
) -> list[tuple[float, float]]:
    """The places of the images of some classes."""
    pairs = zip(places, labels, strict=True)
    return [place for place, label in pairs if label in wanted]


def _name_of_rest(others: Collection[int], marked: Collection[int]) -> str:
    """What the classes without a colour are called."""
    if not marked:
        return "images without classes"
    return "1 other class" if len(others) == 1 else f"{len(others)} other classes"


def _cloud(name: str, places: Sequence[tuple[float, float]], mark: str) -> Cloud:
    """A class with a mark at each of its images."""
    path = "".join(f"M{x:.1f},{y:.1f}{mark}" for x, y in places)
    return Cloud(name, len(places), path, f"M8,8{mark}")
