"""The loss of both streams together (Eqs. 4 and 5)."""

from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor
from care.errors import CareError
from care.similarity import Embeddings, unit
from care.streams import CStreamOut, TStreamOut


class CareLoss(NamedTuple):
    """The terms of Eq. 5, scalars: total = cnn + transformer + weight · attention, which is not weighted here."""

    total: Float[Tensor, ""]
    cnn: Float[Tensor, ""]
    transformer: Float[Tensor, ""]
    attention: Float[Tensor, ""]


def attention_loss(c: Embeddings, t: Embeddings, *, norm: bool = False) -> Float[Tensor, ""]:
    """Eq. 4, ``t`` detached: mean squared error of unit vectors, summed over views (λ = 100); ``norm``: its ‖c − t‖₂, for another λ."""
    first, second = (unit(x) - unit(y.detach()) for x, y in zip(c, t, strict=True))
    if norm:
        return torch.mean(torch.linalg.vector_norm(torch.stack((first, second)), dim=2).sum(0))
    return first.square().mean() + second.square().mean()


def care_loss(
    c: CStreamOut, t: TStreamOut | None = None, *, attention_weight: float = 100, norm: bool = False
) -> CareLoss:
    """Eq. 5: L_c + L_t + λ·L_att, ``norm`` as in ``attention_loss``, L_c alone without ``t``; unequal widths are a ``CareError``."""
    cnn = c.objective.loss(c.online, c.target)
    if t is None:
        return CareLoss(cnn, cnn, torch.zeros_like(cnn), torch.zeros_like(cnn))
    if (one := c.online[0].shape[1]) != (other := t.online[0].shape[1]):
        raise CareError(
            f"Eq. 4 needs embeddings of one width, got {one} and {other}; give both objectives one dim"
        )
    transformer, attention = (
        t.objective.loss(t.online, t.target),
        attention_loss(c.online, t.online, norm=norm),
    )
    return CareLoss(cnn + transformer + attention_weight * attention, cnn, transformer, attention)
