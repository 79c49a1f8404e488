"""How good features are, judged without labels: ranks, alignment, uniformity, agreement."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from care.errors import CareError
from care.evaluate.neighbours import nearest

# rows whose distances from all others are computed at once
ROWS_AT_ONCE = 1024


@torch.no_grad()
def rankme(features: Float[Tensor, "n d"], *, epsilon: float = 1e-7) -> float:
    """How many directions features use: the effective rank of their matrix.

    It is exp(−Σ p log p) of p, the singular values divided by their sum, plus ``epsilon``. A
    collapsed encoder has 1, one that uses all directions alike has min(n, d). Features are not
    centred.

    Args:
        features: of n images, of any length.
        epsilon: the paper's, for float32.

    Source: Garrido et al. 2023, "RankMe: Assessing the Downstream Performance of Pretrained
    Self-Supervised Representations by Their Rank", Eq. 2.
    """
    singular_values = torch.linalg.svdvals(features.double())
    return _effective_rank(singular_values, epsilon)


@torch.no_grad()
def lidar(views: Float[Tensor, "n q d"], *, ridge: float = 1e-4, epsilon: float = 1e-7) -> float:
    """How many directions tell images apart although their views differ: LiDAR.

    Every image is a class of its own, its views are the members. The effective rank, as of
    ``rankme``, is that of W^−½ B W^−½: B is the covariance of the images' means, W that of the
    views around the mean of their image, with ``ridge`` on its diagonal. It is at most
    min(n − 1, d).

    Args:
        views: features of q views of each of n images.
        ridge: the paper's δ.
        epsilon: as for ``rankme``.

    Raises:
        CareError: There are fewer than two images, or views of each.

    Source: Thilak et al. 2024, "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL
    Architectures", Sec. 4.
    """
    images, count = views.shape[:2]
    if min(images, count) < 2:
        raise CareError(
            f"wanted at least 2 views of each of at least 2 images, got {count} of {images}"
        )
    views = views.double()
    means = views.mean(1)
    from_mean = means - means.mean(0)
    between = from_mean.T @ from_mean / (images - 1)
    in_images = (views - means[:, None]).flatten(0, 1)
    within = in_images.T @ in_images / (images * (count - 1))
    within.diagonal().add_(ridge)
    # the eigenvalues of W^−½ B W^−½ are those of L⁻¹ B L⁻ᵀ, where W is L Lᵀ
    lower = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(lower, between, upper=False)
    whitened = torch.linalg.solve_triangular(lower, half.T, upper=False)
    eigenvalues = torch.linalg.eigvalsh((whitened + whitened.T) / 2)
    return _effective_rank(eigenvalues.clamp_min(0), epsilon)


@torch.no_grad()
def alignment(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> float:
    """How far apart the two views of an image are: the mean squared distance on the unit sphere.

    Less is better; 0 is what a collapsed encoder has, and 2 are independent directions.

    Args:
        first: features of one view of each image, of any length.
        second: of another view of the same images.

    Source: Wang & Isola 2020, "Understanding Contrastive Representation Learning through Alignment
    and Uniformity on the Hypersphere", Eq. 7 with α = 2.
    """
    apart = _unit(first) - _unit(second)
    return float(apart.square().sum(1).mean())


@torch.no_grad()
def uniformity(features: Float[Tensor, "n d"], *, t: float = 2) -> float:
    """How evenly features fill the unit sphere: the log of the mean Gaussian of their distances.

    It is log mean exp(−t ‖x − y‖²) over all pairs of images. Less is better; a collapsed encoder
    has 0, the highest.

    Args:
        features: of n images, of any length.
        t: the paper's.

    Raises:
        CareError: There are fewer than two images.

    Source: Wang & Isola 2020, Eq. 8.
    """
    images = len(features)
    if images < 2:
        raise CareError(f"wanted at least 2 images, which make a pair, got {images}")
    unit = _unit(features)
    sums = []
    for rows in torch.split(torch.arange(images), ROWS_AT_ONCE):
        squared_distances = (2 - 2 * unit[rows] @ unit.T).clamp_min(0)
        squared_distances[torch.arange(len(rows)), rows] = torch.inf  # from itself
        sums.append((-t * squared_distances).exp().sum())
    return float((torch.stack(sums).sum() / (images * (images - 1))).log())


def neighbour_agreement(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    k: int = 10,
    *,
    device: torch.device | str = "cpu",
) -> Float[Tensor, " n"]:
    """How many nearest neighbours of an image are the same by two of its views.

    The neighbours of an image by its first view are sought among the first views of all others,
    those by its second view among the second ones. Chance is k / (n − 1); a collapsed encoder is
    near it, or at 1 where its features are all equal and neighbours are in the order of the rows.

    Args:
        first: float32 features of one view of each image, on the CPU.
        second: of another view of the same images.
        k: neighbours, at most n − 1.
        device: where the cosines are computed.

    Returns:
        Of each image the share of its ``k`` neighbours that are the same.

    Raises:
        CareError: There are not so many other images.
    """
    images = len(first)
    if not 1 <= k < images:
        raise CareError(f"wanted {k} neighbours among other images, got {images} images in all")
    of_first, of_second = (_other_neighbours(x, k, device) for x in (first, second))
    is_same = of_first[:, :, None] == of_second[:, None]
    return is_same.any(2).float().mean(1)


def _other_neighbours(
    features: Float[Tensor, "n d"], k: int, device: torch.device | str
) -> Int[Tensor, "n k"]:
    """Rows of the ``k`` nearest other images of each, in any order."""
    rows = nearest(features, features, k + 1, device=device).rows
    is_other = rows != torch.arange(len(features))[:, None]
    # of equal features an image need not be among its own nearest: then the farthest goes
    is_other[:, -1] &= ~is_other.all(1)
    return rows[is_other].reshape(len(features), k)


def _effective_rank(values: Float[Tensor, " r"], epsilon: float) -> float:
    """The exponential of the entropy of values that are at least 0, as shares of their sum."""
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + epsilon
    return float((-shares * shares.log()).sum().exp())


def _unit(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return nn.functional.normalize(features.double(), dim=1)
