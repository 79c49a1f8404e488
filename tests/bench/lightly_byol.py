"""lightly's BYOL, put together as its documentation does, the peer of several benchmarks."""

import copy
from collections.abc import Callable
import torch
from torch import Tensor, nn


def lightly_step(
    backbone: nn.Module,
    features: int,
    *,
    hidden: int = 4096,
    precision: torch.dtype = torch.float32,
    device: str = "cpu",
    prepare: Callable[[nn.Module], None] = lambda _: None,
) -> Callable[[Tensor, Tensor], None]:
    """A training step of lightly's BYOL on two views, with channels_last.

    Args:
        backbone: images to pooled features.
        features: how many those are.
        hidden: hidden width of projector and predictor.
        precision: of autocast; float32 is none.
        device: where the views will be.
        prepare: gets each network before the first step, such as to compile it.
    """
    # here, so that the other peers can do without lightly
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    online = nn.Sequential(backbone, BYOLProjectionHead(features, hidden, 256))
    online.to(device, memory_format=torch.channels_last)
    predictor = BYOLPredictionHead(256, hidden, 256).to(device)
    target = copy.deepcopy(online)
    for module in (online, target, predictor):
        prepare(module)
    deactivate_requires_grad(target)
    criterion = NegativeCosineSimilarity()
    parameters = [*online.parameters(), *predictor.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-4)

    def step(x1: Tensor, x2: Tensor) -> None:
        update_momentum(online, target, 0.99)
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            q1 = predictor(online(x1))
            q2 = predictor(online(x2))
            with torch.no_grad():
                k1 = target(x1)
                k2 = target(x2)
            loss = 0.5 * (criterion(q1, k2) + criterion(q2, k1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
