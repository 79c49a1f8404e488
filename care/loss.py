"""The loss: Equations 4 and 5; Equations 1 and 3 are ``objectives.similarity_loss``."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from care.errors import CareError
from care.objectives import Embeddings, unit
from care.streams import CStreamOut, TStreamOut


class CareLoss(NamedTuple):
    """The terms of Eq. 5, scalars: total = cnn + transformer + weight · attention, which is not weighted here."""

    total: Float[Tensor, ""]
    cnn: Float[Tensor, ""]
    transformer: Float[Tensor, ""]
    attention: Float[Tensor, ""]


def attention_loss(c: Embeddings, t: Embeddings, *, norm: bool = False) -> Float[Tensor, ""]:
    """Eq. 4 between unit vectors, the mean over the batch, summed over the views.

    The T-stream's side is detached: it supervises and is not pulled. By default the mean squared error over the channels (the paper's
    text, the released code; λ = 100 belongs to it), with ``norm`` the distance ‖c − t‖₂ that Eq. 4 prints, which wants its own weight.
    Eq. 4's terms of the targets carry no gradient; give their embeddings for the logged value.
    """
    first, second = (unit(x) - unit(y.detach()) for x, y in zip(c, t, strict=True))
    if norm:
        distances: Tensor = torch.linalg.vector_norm(torch.stack((first, second)), dim=2)
        return distances.sum(0).mean()
    return first.square().mean() + second.square().mean()


def care_loss(c: CStreamOut, t: TStreamOut | None = None, *, attention_weight: float = 100, norm: bool = False) -> CareLoss:
    """Eq. 5: L_c + L_t + λ·L_att, ``norm`` as in ``attention_loss``. Without ``t`` it is the C-stream alone, L_c.

    Embeddings of unequal width are a ``CareError``.
    """
    cnn = c.objective.loss(c.online, c.target)
    if t is None:
        return CareLoss(cnn, cnn, torch.zeros_like(cnn), torch.zeros_like(cnn))
    if (one := c.online[0].shape[1]) != (other := t.online[0].shape[1]):
        raise CareError(f"Eq. 4 needs embeddings of one width, got {one} and {other}; give both objectives one dim")
    transformer = t.objective.loss(t.online, t.target)
    attention = attention_loss(c.online, t.online, norm=norm)
    return CareLoss(cnn + transformer + attention_weight * attention, cnn, transformer, attention)
