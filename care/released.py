"""The authors' released variant (github.com/ChongjianGE/CARE), composed of our blocks; docs/method.md lists the differences."""

from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from care import encoders
from care.attention import AbsolutePosition, AttentionBlock, Transformer
from care.encoders import ResNetEncoder
from care.loss import CareLoss, attention_loss, care_loss
from care.momentum import MomentumPair
from care.objectives import Embeddings
from care.schedules import momentum_at
from care.streams import CStream, TStream
from care.weights import load_exactly

WEIGHT = 100
"""λ of Eq. 5."""


class Outputs(NamedTuple):
    """Unit embeddings of a step, a pair each, in the authors' names: q₁ is to agree with k₁, which is of the other view.

    ``q`` and ``t``: the C- and the T-stream's online ones, of view 1 and of view 2; ``k`` and ``kt``: the targets', of 2 and of 1.
    """

    q: Embeddings
    t: Embeddings
    k: Embeddings
    kt: Embeddings


class Released:
    """Both streams and their optimizer; ``online`` and ``target`` hold our modules under the authors' key names.

    Against our defaults: learnable absolute positions, the last γ of a block starts at one, the momentum update comes before the
    forward, and the logged attention loss has the two target terms, which carry no gradient. Weights and sums are of torch's default dtype.
    ``outputs`` are those of the last step.
    """

    outputs: Outputs

    def __init__(self, encoder: ResNetEncoder, *, total_steps: int) -> None:
        transformer = Transformer(1024, 2048, map_size=(14, 14), position=AbsolutePosition, zero_gamma=False)
        self.c, self.t = CStream(MomentumPair(encoder)), TStream(MomentumPair(transformer))
        self.online = _named(self.c, self.t, "online")
        self.target = _named(self.c, self.t, "target")
        self.total_steps = total_steps
        self._restart()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take weights under the authors' key names and start at step 0 with fresh optimizer slots.

        ``state`` has every key of the student, with or without ``module.`` and ``student_encoder.``, and all or none of the teacher's
        (``teacher_encoder.``): without, it is a copy of the student. A ``CareError`` names what is missing, unexpected or of another shape.
        """
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        teacher = {name.removeprefix("teacher_encoder."): x for name, x in state.items() if name.startswith("teacher_encoder.")}
        student = {name.removeprefix("student_encoder."): x for name, x in state.items() if not name.startswith("teacher_encoder.")}
        load_exactly(self.online, student, source="the student")
        load_exactly(self.target, teacher or {name: student[name] for name in self.target.state_dict()}, source="the teacher")
        self._restart()

    def step(self, x1: Float[Tensor, "b 3 224 224"], x2: Float[Tensor, "b 3 224 224"], *, lr: float) -> CareLoss:
        """One training step; the gradients stay until the next one, ``outputs`` too."""
        momentum = momentum_at(self.steps, total=self.total_steps)
        self.c.update(momentum)
        self.t.update(momentum)
        c = self.c(x1, x2)
        t = self.t(c.maps)
        loss = care_loss(c, t, attention_weight=WEIGHT)
        logged = attention_loss(c.target, t.target)
        loss = loss._replace(total=loss.total + WEIGHT * logged, attention=loss.attention + logged)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        self.steps += 1
        one, two = ((F.normalize(a.detach()), F.normalize(b.detach())) for a, b in (c.online, t.online))
        three, four = ((F.normalize(b), F.normalize(a)) for a, b in (c.target, t.target))
        self.outputs = Outputs(one, two, three, four)
        return CareLoss(*(term.detach() for term in loss))

    def _restart(self) -> None:
        self.steps = 0
        self.optimizer = torch.optim.SGD(self.online.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)


def resnet50(*, total_steps: int) -> Released:
    """The released ResNet-50 at 224 px, to be trained for ``total_steps``."""
    return Released(encoders.resnet50(), total_steps=total_steps)


def _named(c: CStream, t: TStream, which: str) -> nn.Module:
    # the same modules once more, in a tree whose state dict has the authors' keys; the target has no predictors
    root = nn.Module()
    for name, child in getattr(c.backbone, which).named_children():
        root.add_module(name, child)
    root.add_module("trans", nn.ModuleDict({"net": nn.ModuleList(_block(block) for block in getattr(t.backbone, which).blocks)}))
    for name, stream in (("fc1", c), ("fc2", t)):
        predictor = stream.predictor.children() if which == "online" else ()
        root.add_module(name, nn.Sequential(*chain(getattr(stream.projector, which).children(), predictor)))
    return root


def _block(block: AttentionBlock) -> nn.ModuleDict:
    attention = nn.ModuleDict({"to_qkv": block.attention.qkv, "pos_emb": block.attention.position})
    return nn.ModuleDict({"shortcut": block.shortcut, "net": nn.Sequential(*block.reduce, attention, block.pool, *block.expand)})
