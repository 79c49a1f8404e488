"""SwAV: tell from one view which prototypes another view is assigned to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.errors import CareError
from care.heads import mlp_head
from care.momentum import Pair, Siamese
from care.objectives.criterion import Criterion
from care.objectives.keys import KeyQueue
from care.objectives.objective import Objective, describe_views
from care.objectives.sinkhorn import sinkhorn
from care.similarity import Embeddings, unit

# views whose assignments are predicted, the first ones
ASSIGNED = 2


@dataclass(frozen=True)
class SwAV(Objective):
    """Predict another view's assignment to prototypes, which share the batch evenly.

    The first two views are assigned; from each of the others, among which there may be any number
    of small crops, the assignments are predicted (``care.train.views.multi_crop``).

    Attributes:
        prototypes: their number.
        temperature: τ, by which the scores of a prediction are divided.
        epsilon: entropy of the assignments, see ``sinkhorn``.
        rounds: of Sinkhorn's algorithm.
        frozen_steps: at first, in which the prototypes get no gradient; the released code's 313 are
            an epoch of ImageNet at batch 4,096.
        queue: embeddings of earlier batches, of each view, that share the prototypes with the
            batch's; 0 is none, and the released code's 3,840 belong to batch 256.
        queue_from: step from which on they are kept; the released code's is that of epoch 15.

    Source: Caron et al. 2020, Unsupervised learning of visual features by contrasting cluster
    assignments. With two views it is that of the two-crop rows of the paper's Table 1.
    """

    hidden: int = 2048
    dim: int = 128
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    rounds: int = 3
    frozen_steps: int = 313
    queue: int = 0
    queue_from: int = 0
    pair: ClassVar[type[Pair]] = Siamese

    def projector(self, inputs: int) -> nn.Module:
        """Make a head of two layers."""
        return mlp_head(inputs, hidden=self.hidden, outputs=self.dim)

    def check_views(self, images: int, puzzles: int = 0) -> None:
        """Refuse fewer than two views, and patches."""
        if images < ASSIGNED or puzzles:
            raise CareError(
                f"SwAV learns from 2 views of an image and any number of small crops behind them,"
                f" got {describe_views(images, puzzles)}"
            )

    def criterion(self) -> Criterion:
        """Make prototypes, and the loss that trains them."""
        return SwappedAssignments(self)


class SwappedAssignments(Criterion):
    """The loss of SwAV, and its prototypes.

    Args:
        objective: whose settings these are.

    Attributes:
        prototypes: unit vectors [prototypes, dim] at the beginning of each step.
        steps: that were taken.
    """

    steps: Tensor

    def __init__(self, objective: SwAV) -> None:
        super().__init__()
        self.objective = objective
        layer = nn.Linear(objective.dim, objective.prototypes, bias=False)
        self.prototypes = nn.Parameter(layer.weight.detach().clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.queues = nn.ModuleList()
        if objective.queue:
            self.queues.extend(KeyQueue(objective.queue, objective.dim) for _ in range(ASSIGNED))
        self._new_embeddings: list[list[Tensor]] = []
        self._normalise()

    def forward(self, online: Embeddings, target: Embeddings) -> Float[Tensor, ""]:
        """Compute the mean of −Σ q log softmax(s/τ) over views and what they predict.

        s are the cosines of a view's embeddings with the prototypes, q the assignments of all
        images of the batch by another view, one of the first two, without gradient.
        """
        views = [unit(embeddings) for embeddings in online]
        assigning = views[:ASSIGNED]
        if self.queues:
            self._new_embeddings.append([view.detach() for view in assigning])
        prototypes = self._trained_prototypes()
        scores = [view @ prototypes.T for view in views]
        losses = []
        for number in range(ASSIGNED):
            assignments = self._assignments(scores[number], number)
            predictions = scores[:number] + scores[number + 1 :]
            losses.append(self._mean_loss(predictions, assignments))
        return torch.stack(losses).mean()

    def check(self, batch_size: int) -> None:
        """Refuse a batch of which the queues hold no multiple.

        Args:
            batch_size: images of a step's part.
        """
        for queue in self.queues:
            queue.check(batch_size)  # type: ignore[operator]

    def after_step(self, parts: int = 1) -> None:
        """Count the step, bring the prototypes back to length 1, and queue the embeddings.

        Args:
            parts: into which the batch was cut, each with assignments of its own.
        """
        if int(self.steps) >= self.objective.queue_from:
            for views in self._new_embeddings[-parts:]:
                for queue, embeddings in zip(self.queues, views, strict=False):
                    queue.replace_oldest(embeddings)  # type: ignore[operator]
        self._new_embeddings.clear()
        self.steps += 1
        self._normalise()

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.copy_(nn.functional.normalize(self.prototypes, dim=1))

    def _trained_prototypes(self) -> Float[Tensor, "k d"]:
        # times 0, so that even frozen prototypes have a gradient, for which processes wait
        share = float(self.steps >= self.objective.frozen_steps)
        return share * self.prototypes + (1 - share) * self.prototypes.detach()

    @torch.no_grad()
    def _assignments(self, scores: Float[Tensor, "b k"], view: int) -> Float[Tensor, "b k"]:
        """Those of the batch, among the embeddings in the queue of its view where there are any."""
        count = len(scores)
        if self.queues:
            queue = self.queues[view]
            if queue.is_full():  # type: ignore[operator]
                earlier = queue.keys.to(scores.dtype) @ self.prototypes.T  # type: ignore[operator]
                scores = torch.cat((earlier, scores))
        objective = self.objective
        assigned = sinkhorn(scores, epsilon=objective.epsilon, rounds=objective.rounds)
        return assigned[-count:]

    def _mean_loss(
        self, predictions: Sequence[Float[Tensor, "b k"]], assignments: Float[Tensor, "b k"]
    ) -> Float[Tensor, ""]:
        """Mean over views of the cross-entropy of what each predicts."""
        scaled = [scores / self.objective.temperature for scores in predictions]
        losses = [nn.functional.cross_entropy(scores, assignments) for scores in scaled]
        return torch.stack(losses).mean()
