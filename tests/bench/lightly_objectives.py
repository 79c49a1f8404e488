"""lightly's objectives beside BYOL, put together as its documentation does, the peers of ours."""

import copy
from collections.abc import Callable, Sequence
import torch
from torch import Tensor, nn

Loss = Callable[[Sequence[Tensor]], Tensor]


def lightly_losses(
    name: str, backbone: nn.Module, features: int, *, queue: int, prototypes: int
) -> tuple[nn.Module, Loss]:
    """The networks of one of lightly's objectives, and its loss of the views of a batch.

    Args:
        name: of the objective, as ours is called.
        backbone: images to pooled features.
        features: how many those are.
        queue: keys of MoCo's queue.
        prototypes: of SwAV.
    """
    makers: dict[str, Callable[[], tuple[nn.Module, Loss]]] = {
        "simsiam": lambda: _simsiam(backbone, features),
        "simclr": lambda: _simclr(backbone, features),
        "moco-v2": lambda: _moco(backbone, features, queue),
        "swav": lambda: _swav(backbone, features, prototypes),
        "barlow-twins": lambda: _barlow_twins(backbone, features),
    }
    return makers[name]()


def lightly_training(networks: nn.Module, loss: Loss) -> Callable[[Sequence[Tensor]], None]:
    """A training step by SGD."""
    networks.to(memory_format=torch.channels_last)
    parameters = [p for p in networks.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-4)

    def step(views: Sequence[Tensor]) -> None:
        loss(views).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _twin(networks: nn.Module) -> nn.Module:
    from lightly.models.utils import deactivate_requires_grad

    target = copy.deepcopy(networks)
    deactivate_requires_grad(target)
    return target


def _simsiam(backbone: nn.Module, features: int) -> tuple[nn.Module, Loss]:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

    online = nn.Sequential(backbone, SimSiamProjectionHead(features, 2048, 2048))
    predictor = SimSiamPredictionHead(2048, 512, 2048)
    criterion = NegativeCosineSimilarity()

    def loss(views: Sequence[Tensor]) -> Tensor:
        z1, z2 = (online(view) for view in views)
        p1, p2 = predictor(z1), predictor(z2)
        return 0.5 * (criterion(p1, z2.detach()) + criterion(p2, z1.detach()))

    return nn.ModuleList((online, predictor)), loss


def _simclr(backbone: nn.Module, features: int) -> tuple[nn.Module, Loss]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    online = nn.Sequential(backbone, SimCLRProjectionHead(features, 2048, 128))
    criterion = NTXentLoss(temperature=0.1)
    return online, lambda views: criterion(*(online(view) for view in views))


def _moco(backbone: nn.Module, features: int, queue: int) -> tuple[nn.Module, Loss]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import update_momentum

    online = nn.Sequential(backbone, MoCoProjectionHead(features, 2048, 128))
    target = _twin(online)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(queue, 128))

    def loss(views: Sequence[Tensor]) -> Tensor:
        update_momentum(online, target, 0.999)
        q1, q2 = (online(view) for view in views)
        with torch.no_grad():
            k1, k2 = (target(view) for view in views)
        return 0.5 * (criterion(q1, k2) + criterion(q2, k1))

    return nn.ModuleList((online, target, criterion)), loss


def _swav(backbone: nn.Module, features: int, prototypes: int) -> tuple[nn.Module, Loss]:
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

    online = nn.Sequential(backbone, SwaVProjectionHead(features, 2048, 128))
    scores = SwaVPrototypes(128, n_prototypes=prototypes)
    criterion = SwaVLoss()

    def loss(views: Sequence[Tensor]) -> Tensor:
        scores.normalize()
        of_views = [scores(nn.functional.normalize(online(view), dim=1)) for view in views]
        return criterion(of_views[:2], of_views[2:])

    return nn.ModuleList((online, scores)), loss


def _barlow_twins(backbone: nn.Module, features: int) -> tuple[nn.Module, Loss]:
    from lightly.loss import BarlowTwinsLoss
    from lightly.models.modules import BarlowTwinsProjectionHead

    online = nn.Sequential(backbone, BarlowTwinsProjectionHead(features, 8192, 8192))
    criterion = BarlowTwinsLoss()
    return online, lambda views: criterion(*(online(view) for view in views))
