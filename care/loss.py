"""The loss of both streams together: attention supervision and the sum (Eqs. 4 and 5)."""

from typing import NamedTuple
import torch
from jaxtyping import Float
from torch import Tensor
from care.errors import CareError
from care.similarity import Embeddings, unit
from care.streams import CStreamOut, TStreamOut


class CareLoss(NamedTuple):
    """The terms of Eq. 5, scalars: total = cnn + transformer + λ · attention.

    Attributes:
        total: what is trained.
        cnn: L_c, the C-stream's objective; of BYOL Eq. 1.
        transformer: L_t, the T-stream's objective; of BYOL Eq. 3.
        attention: L_att, Eq. 4, not weighted.
    """

    total: Float[Tensor, ""]
    cnn: Float[Tensor, ""]
    transformer: Float[Tensor, ""]
    attention: Float[Tensor, ""]


def attention_loss(c: Embeddings, t: Embeddings, *, norm: bool = False) -> Float[Tensor, ""]:
    """Distance of the C-stream's embeddings from the T-stream's, which supervise (Eq. 4).

    By default it is the mean squared error of unit vectors over batch and channels, summed over
    the views, as the paper's text and the released code have it. The weight λ = 100 belongs to this
    form: a mean over 256 channels is small.

    Eq. 4 also has a term of the targets. It carries no gradient: the released code adds it to the
    value that it logs, which is ``attention_loss(c.target, t.target)`` here.

    Args:
        c: embeddings of the C-stream, of both views first.
        t: embeddings of the T-stream. They get no gradient: it supervises and is not pulled.
        norm: take the distance ‖c − t‖₂ that Eq. 4 prints instead, the mean over the batch; it
            wants a weight of its own.

    Returns:
        A scalar, in float32 at least.

    Source: Eq. 4, Sec. 3.3.
    """
    # of further, small views there is nothing to supervise by
    view1 = unit(c[0]) - unit(t[0].detach())
    view2 = unit(c[1]) - unit(t[1].detach())
    if norm:
        distances: Tensor = torch.linalg.vector_norm(torch.stack((view1, view2)), dim=2)
        return distances.sum(0).mean()
    return view1.square().mean() + view2.square().mean()


def care_loss(
    c: CStreamOut, t: TStreamOut | None = None, *, attention_weight: float = 100, norm: bool = False
) -> CareLoss:
    """Add up the terms of both streams: L_c + L_t + λ · L_att (Eq. 5).

    Args:
        c: what the C-stream gave.
        t: what the T-stream gave of its maps; None trains the C-stream alone, by L_c.
        attention_weight: λ; 100 is best of 0, 1, 10, 100 and 250 (Table 6).
        norm: the form of L_att, see ``attention_loss``.

    Returns:
        The total and its terms; those that there are not are 0.

    Raises:
        CareError: The embeddings of the two streams differ in width.

    Source: Eq. 5, Sec. 3.3.
    """
    of_batch = () if c.samples is None else (c.samples,)
    cnn = c.criterion(c.online, c.target, *of_batch)
    if t is None:
        return CareLoss(cnn, cnn, torch.zeros_like(cnn), torch.zeros_like(cnn))
    c_width = c.online[0].shape[1]
    t_width = t.online[0].shape[1]
    if c_width != t_width:
        raise CareError(
            f"Eq. 4 needs embeddings of one width, got {c_width} and {t_width}; give both"
            " objectives one dim"
        )
    transformer = t.criterion(t.online, t.target)
    attention = attention_loss(c.online, t.online, norm=norm)
    return CareLoss(cnn + transformer + attention_weight * attention, cnn, transformer, attention)
