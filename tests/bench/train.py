"""One training step of ResNet-50 at 224 px, beside its peers (nox -s bench -- train).

Ours stands beside the released recipe written plainly and lightly's BYOL. The plain recipe is what
the released code describes: each view through the network by itself, attention by einsum with
materialised position logits, momentum and SGD a parameter at a time, contiguous, eager. Before
anything is timed its losses and gradients are compared with ours in float64. All peers run
interleaved in one process on the same views.
"""

import argparse
import copy
from collections.abc import Callable
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet
from torchvision.models import resnet50 as torchvision_resnet50
from care import (
    AbsolutePosition,
    CStream,
    MomentumPair,
    RelativePosition,
    Transformer,
    TStream,
    care_loss,
    mlp_head,
    resnet50,
)
from care.encoders import ResNetEncoder
from care.momentum import update_targets
from care.positions import Position
from care.train.precision import fastest_precision
from care.train.view_threads import ViewThreads
from tests.bench.lightly_byol import lightly_step
from tests.bench.timing import interleaved, keep_memory, show

SIZE, LR, TAU = 224, 0.05, 0.99


class PlainBlock(nn.Module):
    """An attention block with materialised position logits; its names let our weights load."""

    def __init__(self, inputs: int, outputs: int, side: int, downsample: bool) -> None:
        super().__init__()
        inner, heads = outputs // 4, 4 * 128
        self.reduce = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.attention = nn.Module()
        self.attention.qkv = nn.Conv2d(inner, 3 * heads, 1, bias=False)
        self.attention.position = nn.Module()
        self.attention.position.height, self.attention.position.width = (
            nn.Parameter(torch.randn(side, 128)) for _ in range(2)
        )
        self.pool = nn.AvgPool2d(2) if downsample else nn.Identity()
        self.expand = nn.Sequential(
            nn.BatchNorm2d(heads),
            nn.ReLU(),
            nn.Conv2d(heads, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        shortcut = (
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.shortcut = nn.Sequential(*shortcut) if downsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.reduce(x)
        b, _, h, w = maps.shape
        q, k, v = self.attention.qkv(maps).reshape(b, 3, 4, 128, h * w).unbind(1)
        q = q * 128**-0.5
        position = (
            self.attention.position.height[:, None, :] + self.attention.position.width[None, :, :]
        )
        logits = torch.einsum("bhdx,bhdy->bhxy", q, k) + torch.einsum(
            "bhdx,yd->bhxy", q, position.flatten(0, 1).to(q.dtype)
        )
        out = torch.einsum("bhxy,bhdy->bhdx", logits.softmax(-1), v).reshape(b, 512, h, w)
        return F.relu(self.expand(self.pool(out)) + self.shortcut(x))


class PlainTransformer(nn.Module):
    def __init__(self, features: int, side: int) -> None:
        super().__init__()
        first = PlainBlock(features // 2, features, side, downsample=True)
        others = [PlainBlock(features, features, side // 2, downsample=False) for _ in range(4)]
        self.blocks = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean((2, 3))


class PlainEncoder(nn.Module):
    def __init__(self, network: Callable[[], ResNet]) -> None:
        super().__init__()
        self.net = network()
        self.features = self.net.fc.in_features
        self.net.fc = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = self.net
        x = n.layer3(n.layer2(n.layer1(n.maxpool(n.relu(n.bn1(n.conv1(x)))))))
        return x, n.layer4(x).mean((2, 3))


def unit(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=1)


class Plain(nn.Module):
    """Both streams of the released recipe, one view at a time; maps are ``side`` pixels wide."""

    def __init__(
        self, network: Callable[[], ResNet] = torchvision_resnet50, side: int = 14
    ) -> None:
        super().__init__()
        self.encoder = PlainEncoder(network)
        self.transformer = PlainTransformer(self.encoder.features, side)
        self.projectors = nn.ModuleList(mlp_head(self.encoder.features) for _ in range(2))
        self.predictors = nn.ModuleList(mlp_head(256) for _ in range(2))
        target = nn.ModuleList((self.encoder, self.transformer, self.projectors))
        self.target = copy.deepcopy(target).requires_grad_(False)

    def load_ours(self, c: CStream, t: TStream) -> None:
        online = self.encoder, self.transformer, self.projectors
        for twin, (encoder, transformer, projectors) in (
            ("online", online),
            ("target", self.target),
        ):
            encoder.net.load_state_dict(getattr(c.backbone, twin).state_dict())
            transformer.load_state_dict(getattr(t.backbone, twin).state_dict())
            for mine, stream in zip(projectors, (c, t), strict=True):
                mine.load_state_dict(getattr(stream.projector, twin).state_dict())
        for mine, stream in zip(self.predictors, (c, t), strict=True):
            mine.load_state_dict(stream.predictor.state_dict())

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        q, k = [], []
        for x in (x1, x2):
            maps, features = self.encoder(x)
            pooled = features, self.transformer(maps)
            projected = [head(f) for head, f in zip(self.projectors, pooled, strict=True)]
            q.append([unit(head(z)) for head, z in zip(self.predictors, projected, strict=True)])
        with torch.no_grad():
            encoder, transformer, projectors = self.target
            for x in (x1, x2):
                maps, features = encoder(x)
                k.append(
                    [
                        unit(head(f))
                        for head, f in zip(projectors, (features, transformer(maps)), strict=True)
                    ]
                )
        streams = [
            (4 - 2 * ((q[0][s] * k[1][s]).sum(1) + (q[1][s] * k[0][s]).sum(1))).mean()
            for s in range(2)
        ]
        attention = sum(F.mse_loss(q[v][0], q[v][1].detach()) for v in range(2))
        return streams[0] + streams[1] + 100 * attention

    def follow(self) -> None:
        online = nn.ModuleList((self.encoder, self.transformer, self.projectors))
        with torch.no_grad():
            for a, b in zip(self.target.parameters(), online.parameters(), strict=True):
                a.data = a.data * TAU + b.data * (1 - TAU)


def ours(
    position: type[Position] = AbsolutePosition,
    network: Callable[[], ResNetEncoder] = resnet50,
    side: int = 14,
) -> tuple[CStream, TStream]:
    """Both streams on a ResNet whose map at layer3 is ``side`` pixels wide."""
    encoder = network()
    width = encoder.features
    transformer = Transformer(width // 2, width, map_size=(side, side), position=position)
    return CStream(MomentumPair(encoder)), TStream(MomentumPair(transformer))


def step_of(
    c: CStream, t: TStream | None, precision: torch.dtype, views: tuple[Tensor, Tensor]
) -> Callable[[], None]:
    """Our step, as ``pretrain`` takes it: on a CPU each view in a thread, on half of the cores."""
    model = nn.ModuleList((c,) if t is None else (c, t)).to(memory_format=torch.channels_last)
    device = next(model.parameters()).device.type
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        LR,
        momentum=0.9,
        weight_decay=1e-4,
        fused=True,
    )
    pairs = [pair for stream in (c, t) if stream for pair in (stream.backbone, stream.projector)]
    threads = torch.get_num_threads()
    by_view = ViewThreads(c, t, threads=threads) if device == "cpu" else None

    def step() -> None:
        x1, x2 = (x.contiguous(memory_format=torch.channels_last) for x in views)
        if by_view:
            torch.set_num_threads(max(threads // 2, 1))
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            if by_view:
                c_out, t_out = by_view(x1, x2)
            else:
                c_out = c(x1, x2)
                t_out = t(c_out.maps) if t else None
            loss = care_loss(c_out, t_out)
        loss.total.backward()
        torch.set_num_threads(threads)
        optimizer.step()
        optimizer.zero_grad()
        update_targets(pairs, TAU)

    return step


def plain_step(
    model: Plain, precision: torch.dtype, layout: torch.memory_format, views: tuple[Tensor, Tensor]
) -> Callable[[], None]:
    model.to(memory_format=layout)
    device = next(model.parameters()).device.type
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        LR,
        momentum=0.9,
        weight_decay=1e-4,
        foreach=False,
    )

    def step() -> None:
        model.follow()
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            loss = model(*(x.contiguous(memory_format=layout) for x in views))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def lightly_byol_step(
    precision: torch.dtype,
    views: tuple[Tensor, Tensor],
    device: str,
    network: Callable[[], ResNet] = torchvision_resnet50,
    prepare: Callable[[nn.Module], None] = lambda _: None,
) -> Callable[[], None]:
    """A step of lightly's BYOL on these views; ``prepare`` gets each network."""
    resnet = network()
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
    features = resnet.fc.in_features
    step = lightly_step(backbone, features, precision=precision, device=device, prepare=prepare)
    return lambda: step(*(x.contiguous(memory_format=torch.channels_last) for x in views))


def same(device: str) -> None:
    """The plain recipe and ours have the same loss and gradients: in float64, on small images."""
    c, t = (stream.double().to(device) for stream in ours())
    plain = Plain().double().to(device)
    for one in t.modules():  # a last γ of zero would hide the attention
        if isinstance(one, nn.BatchNorm2d):
            nn.init.uniform_(one.weight, 0.5, 1.5)
    plain.load_ours(c, t)
    views = torch.randn(2, 4, 3, SIZE, SIZE, dtype=torch.float64, device=device)
    out = c(*views)
    total, reference = care_loss(out, t(out.maps)).total, plain(*views)
    total.backward()
    reference.backward()
    both = zip(c.backbone.online.parameters(), plain.encoder.parameters(), strict=True)
    gradients = max(float((a.grad - b.grad).norm() / b.grad.norm()) for a, b in both)
    difference = abs(total - reference).item() / reference.item()
    print(
        f"float64: relative difference of the loss {difference:.1e}, "
        f"of the encoder's gradients at most {gradients:.1e}"
    )
    assert difference < 1e-9
    assert gradients < 1e-6


def gemm_peak(precision: torch.dtype, device: str) -> float:
    """FLOP/s of large square products."""
    n = 4096 if device == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=precision)
    b = torch.randn(n, n, device=device, dtype=precision)
    seconds = min(
        interleaved({"": lambda: synchronized(lambda: a @ b, device)}, 1)[""] for _ in range(5)
    )
    return 2 * n**3 / seconds


def synchronized(run: Callable[[], object], device: str) -> None:
    run()
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = options.batch_size or (128 if device == "cuda" else 8)
    torch.manual_seed(0)
    same(device)
    x = torch.randn(2, batch, 3, SIZE, SIZE, device=device)
    views = x[0], x[1]
    native = fastest_precision(torch.device(device))
    # emulated bfloat16 is slower than float32
    low = torch.float32 if native == "fp32" else torch.bfloat16
    contiguous = torch.contiguous_format
    c, t = (stream.to(device) for stream in ours())
    work = {
        "released, fp32": plain_step(Plain().to(device), torch.float32, contiguous, views),
        "released, autocast": plain_step(Plain().to(device), low, contiguous, views),
        "released, autocast, channels_last": plain_step(
            Plain().to(device), low, torch.channels_last, views
        ),
        "care": step_of(c, t, low, views),
        "care, relative positions": step_of(
            *(stream.to(device) for stream in ours(RelativePosition)), low, views
        ),
        "care, C-stream alone": step_of(ours()[0].to(device), None, low, views),
        "lightly's BYOL, channels_last": lightly_byol_step(low, views, device),
    }
    work = {name: (lambda run=run: synchronized(run, device)) for name, run in work.items()}
    for kept in (False, True) if device == "cpu" else (False,):
        if kept:
            keep_memory()
        interleaved(work, 1)  # the first step allocates
        times = interleaved(work, options.rounds)
        title = f"a step of ResNet-50 at {SIZE} px, {batch} images, {device}, autocast to {low}"
        if kept:
            title += ", freed memory kept, as pretrain does"
        show(title, times, count=batch, unit="image", reference="released, fp32")
    peak = gemm_peak(low, device)
    share = 95.2e9 * batch / times["care"] / peak
    print(
        f"{low} GEMM peak {peak / 1e12:.2f} TFLOP/s; "
        f"care reaches {share:.0%} of it (95.2 GFLOP an image)"
    )
    print(f"T-stream over C-stream alone: {times['care'] / times['care, C-stream alone']:.2f}×")
    released = times["released, autocast, channels_last"]
    print(
        f"care beside the released recipe, autocast, channels_last: {released / times['care']:.2f}×"
    )
    pairs = [pair for stream in (c, t) for pair in (stream.backbone, stream.projector)]
    plain = Plain().to(device)
    updates = {"loop": plain.follow, "care": lambda: update_targets(pairs, TAU)}
    momentum = interleaved(
        {name: (lambda run=run: synchronized(run, device)) for name, run in updates.items()}, 9
    )
    loop, fused = momentum["loop"], momentum["care"]
    print(f"momentum update: {loop * 1e3:.0f} → {fused * 1e3:.0f} ms, {loop / fused:.1f}×")


if __name__ == "__main__":
    main()
