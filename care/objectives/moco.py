"""MoCo v1 and v2: tell the key of the other view from a queue of earlier images' keys."""

from dataclasses import dataclass
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.objectives.criterion import Criterion
from care.objectives.keys import KeyQueue
from care.objectives.objective import Objective
from care.similarity import Embeddings, unit


@dataclass(frozen=True)
class MoCoV2(Objective):
    """Tell the momentum key of the other view from the keys of earlier batches: MoCo v2.

    Attributes:
        temperature: τ, by which cosines are divided.
        queue: number of keys, of which batches replace the oldest.
        symmetric: each view is once the query and once the key, and both views' keys are queued, as
            in the two-crop comparisons that the paper's Table 1 cites. Else view 1 is the query and
            view 2 the key, as in the released code of MoCo; the loss is then half as large.

    Source: Chen et al. 2020, Improved baselines with momentum contrastive learning.
    """

    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.2
    queue: int = 65_536
    symmetric: bool = True

    def projector(self, inputs: int) -> nn.Module:
        """Make a head of two layers without batch norm."""
        return nn.Sequential(
            nn.Linear(inputs, self.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(self.hidden, self.dim),
        )

    def criterion(self) -> Criterion:
        """Make the contrast with a queue of its own."""
        return QueueContrast(self)


@dataclass(frozen=True)
class MoCoV1(MoCoV2):
    """The same with a linear head, a lower temperature and one direction: MoCo v1.

    Source: He et al. 2020, Momentum contrast for unsupervised visual representation learning.
    """

    temperature: float = 0.07
    symmetric: bool = False

    def projector(self, inputs: int) -> nn.Module:
        """Make a linear head; ``hidden`` is that of a T-stream beside it."""
        return nn.Linear(inputs, self.dim)


class QueueContrast(Criterion):
    """The loss of MoCo, and its queue.

    With batch norm over all processes there is nothing for a shuffle of the keys between processes
    to hide: no process sees the statistics of fewer images than the others.

    Args:
        objective: whose settings these are.
    """

    def __init__(self, objective: MoCoV2) -> None:
        super().__init__()
        self.objective = objective
        self.queue = KeyQueue(objective.queue, objective.dim)
        self._new_keys: list[Tensor] = []

    def forward(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the mean of −log softmax([q·k⁺, q·queue] / τ)₀, in each direction that counts."""
        keys1, keys2 = (unit(embeddings.detach()) for embeddings in target)
        loss = self._contrast(online[0], keys2)
        if self.objective.symmetric:
            loss = loss + self._contrast(online[1], keys1)
            self._new_keys.append(torch.cat((keys1, keys2)))
        else:
            self._new_keys.append(keys2)
        return loss

    def check(self, batch_size: int) -> None:
        """Refuse a batch of which the queue holds no multiple.

        Args:
            batch_size: images of a step's part.
        """
        self.queue.check(2 * batch_size if self.objective.symmetric else batch_size)

    def after_step(self, parts: int = 1) -> None:
        """Queue the keys of the step; of one that was taken again, those of the last time.

        Args:
            parts: into which the batch was cut.
        """
        for keys in self._new_keys[-parts:]:
            self.queue.replace_oldest(keys)
        self._new_keys.clear()

    def _contrast(
        self, embeddings: Float[Tensor, "b d"], keys: Float[Tensor, "b d"]
    ) -> Float[Tensor, ""]:
        queries = unit(embeddings)
        # of the step's queue: the optimizer's step comes before the queue moves on
        negatives = queries @ self.queue.keys.T.to(queries.dtype)
        positives = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat((positives, negatives), dim=1) / self.objective.temperature
        first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return nn.functional.cross_entropy(logits, first)
