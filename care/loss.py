"""The loss: Equations 1, 3, 4 and 5."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from care.streams import CStreamOut, Embeddings, TStreamOut


class CareLoss(NamedTuple):
    """The terms of Eq. 5, scalars: total = cnn + transformer + weight · attention."""

    total: Float[Tensor, ""]
    cnn: Float[Tensor, ""]
    transformer: Float[Tensor, ""]
    attention: Float[Tensor, ""]
    """Not weighted."""


def similarity_loss(online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
    """Eqs. 1 and 3, symmetric over the views: mean of 4 − 2·(cos(online₁, target₂) + cos(online₂, target₁)); in 0…8."""
    (q1, q2), (k1, k2) = (tuple(map(_unit, pair)) for pair in (online, target))
    return (4 - 2 * ((q1 * k2.detach()).sum(1) + (q2 * k1.detach()).sum(1))).mean()


def attention_loss(c: Embeddings, t: Embeddings, *, norm: bool = False) -> Float[Tensor, ""]:
    """Eq. 4 between unit vectors, the mean over the batch, summed over the views.

    The T-stream's side is detached: it supervises and is not pulled. By default the mean squared error over the channels, as the
    paper's text and the released code have it; the weight λ = 100 belongs to this form. Eq. 4's terms of the targets carry
    no gradient; give their embeddings for the logged value.

    Args:
        c: embeddings of the C-stream.
        t: embeddings of the T-stream.
        norm: the distance ‖c − t‖₂ that Eq. 4 prints, instead; it wants a weight of its own.
    """
    first, second = (_unit(x) - _unit(y.detach()) for x, y in zip(c, t, strict=True))
    if norm:
        distances: Tensor = torch.linalg.vector_norm(torch.stack((first, second)), dim=2).sum(0)
        return distances.mean()
    return first.square().mean() + second.square().mean()


def care_loss(c: CStreamOut, t: TStreamOut | None = None, *, attention_weight: float = 100, norm: bool = False) -> CareLoss:
    """Eq. 5: L_c + L_t + λ·L_att, ``norm`` as in ``attention_loss``. Without ``t`` it is the C-stream alone, L_c (BYOL)."""
    cnn = similarity_loss(c.online, c.target)
    if t is None:
        return CareLoss(cnn, cnn, torch.zeros_like(cnn), torch.zeros_like(cnn))
    transformer = similarity_loss(t.online, t.target)
    attention = attention_loss(c.online, t.online, norm=norm)
    return CareLoss(cnn + transformer + attention_weight * attention, cnn, transformer, attention)


def _unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    # never below float32: a cosine near 1 has no digits left in bfloat16
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
