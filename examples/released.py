"""The authors' released variant (github.com/ChongjianGE/CARE), composed of our blocks.

docs/method.md lists the differences. After `care demo`: python examples/released.py [STEPS
[CHECKPOINT]] trains it for some steps, from a state dict of the authors' if one is given.
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

WEIGHT = 100  # λ of Eq. 5


class Released:
    """Both streams and their optimizer.

    Attributes:
        online: our online modules under the authors' key names.
        target: our target modules likewise.
        outputs: unit embeddings of a step: the authors' q and t, online, of views 1 and 2; their
            k and kt, targets, of views 2 and 1.
    """

    outputs: tuple[Embeddings, ...]

    def __init__(self, encoder: encoders.ResNetEncoder, *, total_steps: int) -> None:
        transformer = Transformer(
            1024, 2048, map_size=(14, 14), position=AbsolutePosition, zero_gamma=False
        )
        self.c = CStream(MomentumPair(encoder))
        self.t = TStream(MomentumPair(transformer))
        self.online = self._named("online")
        self.target = self._named("target")
        self.steps = 0
        self.total_steps = total_steps
        self.optimizer = torch.optim.SGD(
            self.online.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4
        )

    def load(self, state: dict[str, Tensor]) -> None:
        """Start anew from a state dict of the authors'.

        Args:
            state: weights under the authors' keys; without the teacher's, it is a copy of the
                student.

        Raises:
            CareError: Keys or shapes misfit; they are named.
        """
        student: dict[str, Tensor] = {}
        teacher: dict[str, Tensor] = {}
        for key, tensor in state.items():
            name = key.removeprefix("module.").removeprefix("student_encoder.")
            if name.startswith("teacher_encoder."):
                teacher[name.removeprefix("teacher_encoder.")] = tensor
            else:
                student[name] = tensor
        load_exactly(self.online, student, source="the student")
        teacher = teacher or {name: student[name] for name in self.target.state_dict()}
        load_exactly(self.target, teacher, source="the teacher")
        self.steps = 0
        self.optimizer.state.clear()

    def step(
        self, x1: Float[Tensor, "b 3 224 224"], x2: Float[Tensor, "b 3 224 224"], *, lr: float
    ) -> CareLoss:
        """Do one training step; the gradients stay until the next one, ``outputs`` too."""
        momentum = momentum_at(self.steps, total=self.total_steps)
        self.c.update(momentum)
        self.t.update(momentum)
        c = self.c(x1, x2)
        t = self.t(c.maps)
        loss = care_loss(c, t, attention_weight=WEIGHT)
        of_targets = attention_loss(c.target, t.target)  # without gradient
        logged = CareLoss(
            total=loss.total + WEIGHT * of_targets,
            cnn=loss.cnn,
            transformer=loss.transformer,
            attention=loss.attention + of_targets,
        )
        self.optimizer.zero_grad()
        torch.autograd.backward(logged.total)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        self.steps += 1
        pairs = (c.online, t.online, c.target[::-1], t.target[::-1])
        self.outputs = tuple((unit(a.detach()), unit(b.detach())) for a, b in pairs)
        return CareLoss(*(term.detach() for term in logged))

    def _named(self, role: str) -> nn.Module:
        """The modules of a role once more, in a tree whose state dict has the authors' keys."""
        blocks = nn.ModuleList()
        for block in getattr(self.t.backbone, role).blocks:
            attention = nn.ModuleDict(
                {"to_qkv": block.attention.qkv, "pos_emb": block.attention.position}
            )
            net = nn.Sequential(*block.reduce, attention, block.pool, *block.expand)
            blocks.append(nn.ModuleDict({"shortcut": block.shortcut, "net": net}))
        tree = nn.ModuleDict(dict(getattr(self.c.backbone, role).named_children()))
        tree["trans"] = nn.ModuleDict({"net": blocks})
        tree["fc1"] = self._head(self.c, role)
        tree["fc2"] = self._head(self.t, role)
        return tree

    @staticmethod
    def _head(stream: CStream | TStream, role: str) -> nn.Sequential:
        """Projector and predictor in a row; the target has no predictor."""
        layers = [*getattr(stream.projector, role)]
        if role == "online":
            layers += stream.predictor.children()
        return nn.Sequential(*layers)


def resnet50(*, total_steps: int) -> Released:
    """Make the released ResNet-50 at 224 px, to be trained for ``total_steps``."""
    return Released(encoders.resnet50(), total_steps=total_steps)


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    train = shards.open("demo/train")
    val = shards.open("demo/val")
    model = resnet50(total_steps=steps)
    for path in sys.argv[2:]:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load(saved.get("state_dict", saved))
    for _, (x1, x2) in batches(train, size=224, batch_size=4, steps=steps):
        print(f"loss {model.step(x1, x2, lr=0.05 * 4 / 256).total:.3f}")
    judged = knn(model.c.backbone.online, train, val, size=224)
    print(f"released: kNN {judged.measures['top1']:.1f} %")
