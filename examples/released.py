"""The authors' released variant (github.com/ChongjianGE/CARE), composed of our blocks; docs/method.md lists the differences.

After `care demo`: python examples/released.py [STEPS [CHECKPOINT]] trains it for some steps, from a state dict of the authors' if given.
"""

import sys
import torch
from jaxtyping import Float
from torch import Tensor, nn
import shards
from care import (
    AbsolutePosition,
    CareLoss,
    CStream,
    MomentumPair,
    Transformer,
    TStream,
    attention_loss,
    care_loss,
    encoders,
    momentum_at,
)
from care.evaluate import knn
from care.similarity import Embeddings, unit
from care.train import batches
from care.train.weights import load_exactly


class Released:
    """Both streams and their optimizer; ``online`` and ``target`` hold our modules under the authors' key names."""

    outputs: tuple[
        Embeddings, ...
    ]  # unit, of a step: the authors' q and t, online, of views 1 and 2; k and kt, targets, of 2 and 1

    def __init__(self, encoder: encoders.ResNetEncoder, *, total_steps: int) -> None:
        transformer = Transformer(
            1024, 2048, map_size=(14, 14), position=AbsolutePosition, zero_gamma=False
        )
        self.c, self.t = CStream(MomentumPair(encoder)), TStream(MomentumPair(transformer))
        self.online, self.target = self._named("online"), self._named("target")
        self.steps, self.total_steps = 0, total_steps
        self.optimizer = torch.optim.SGD(
            self.online.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4
        )

    def load(self, state: dict[str, Tensor]) -> None:
        """Start anew with weights under the authors' keys, without the teacher's its copy of the student; a ``CareError`` names misfits."""
        student = {
            name.removeprefix("module.").removeprefix("student_encoder."): tensor
            for name, tensor in state.items()
        }
        teacher = {
            name.removeprefix("teacher_encoder."): student.pop(name)
            for name in [*student]
            if name.startswith("teacher_encoder.")
        }
        load_exactly(self.online, student, source="the student")
        load_exactly(
            self.target,
            teacher or {name: student[name] for name in self.target.state_dict()},
            source="the teacher",
        )
        self.steps = 0
        self.optimizer.state.clear()

    def step(
        self, x1: Float[Tensor, "b 3 224 224"], x2: Float[Tensor, "b 3 224 224"], *, lr: float
    ) -> CareLoss:
        """One training step; the gradients stay until the next one, ``outputs`` too."""
        for stream in (self.c, self.t):
            stream.update(momentum_at(self.steps, total=self.total_steps))
        c = self.c(x1, x2)
        t = self.t(c.maps)
        loss, logged = care_loss(c, t), attention_loss(c.target, t.target)
        loss = loss._replace(
            total=loss.total + 100 * logged, attention=loss.attention + logged
        )  # λ of Eq. 5
        self.optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        self.steps += 1
        self.outputs = tuple(
            (unit(one.detach()), unit(two.detach()))
            for one, two in (c.online, t.online, c.target[::-1], t.target[::-1])
        )
        return CareLoss(*(term.detach() for term in loss))

    def _named(self, which: str) -> nn.Module:
        # the same modules once more, in a tree whose state dict has the authors' keys; the target has no predictors
        blocks = nn.ModuleList()
        for block in getattr(self.t.backbone, which).blocks:
            attention = nn.ModuleDict(
                {"to_qkv": block.attention.qkv, "pos_emb": block.attention.position}
            )
            net = nn.Sequential(*block.reduce, attention, block.pool, *block.expand)
            blocks.append(nn.ModuleDict({"shortcut": block.shortcut, "net": net}))
        heads = (
            [*getattr(s.projector, which), *(s.predictor.children() if which == "online" else ())]
            for s in (self.c, self.t)
        )
        fc1, fc2 = (nn.Sequential(*head) for head in heads)
        stages = getattr(self.c.backbone, which).named_children()
        return nn.ModuleDict(dict(stages, trans=nn.ModuleDict({"net": blocks}), fc1=fc1, fc2=fc2))


def resnet50(*, total_steps: int) -> Released:
    """The released ResNet-50 at 224 px, to be trained for ``total_steps``."""
    return Released(encoders.resnet50(), total_steps=total_steps)


if __name__ == "__main__":
    train, val, steps = (
        shards.open("demo/train"),
        shards.open("demo/val"),
        int([*sys.argv, "20"][1]),
    )
    model = resnet50(total_steps=steps)
    for path in sys.argv[2:]:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load(saved.get("state_dict", saved))
    for _, (x1, x2) in batches(train, size=224, batch_size=4, steps=steps):
        print(f"loss {model.step(x1, x2, lr=0.05 * 4 / 256).total:.3f}")
    print(
        f"released: kNN {knn(model.c.backbone.online, train, val, size=224).measures['top1']:.1f} %"
    )
