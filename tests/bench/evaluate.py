"""Evaluation on a frozen encoder: features beside the bare forward pass, ten learning rates beside one (nox -s bench -- evaluate)."""

import tempfile
from pathlib import Path
import torch
from torch.nn import functional as F
import shards
from care import build_encoder
from care.evaluate import extract
from care.evaluate.linear import LRS, _Heads
from shards import scenes
from tests.bench.timing import interleaved, show

COUNT, SIZE, BATCH, CLASSES = 512, 160, 64, 1000


@torch.no_grad()
def forward(encoder: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        encoder(batch)


def extraction(device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        scenes.write(root / "images", count=COUNT, seed=0, size=SIZE)
        shards.build(root / "images" / "images", root / "set")
        data = shards.open(root / "set")
        for name in ("resnet18", "resnet50"):
            encoder = build_encoder(name).eval().to(device, memory_format=torch.channels_last)
            x = torch.randn(COUNT, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
            work = {
                "forward": lambda encoder=encoder, x=x: forward(encoder, list(x.split(BATCH))),
                "extract": lambda encoder=encoder: extract(encoder, data, size=SIZE, batch_size=BATCH),
                "extract, a worker": lambda encoder=encoder: extract(encoder, data, size=SIZE, batch_size=BATCH, workers=1),
            }
            show(f"features, {name}, {SIZE} px, fp32", interleaved(work, 3), count=COUNT, unit="image", reference="forward")


def rates(device: str) -> None:
    encoder = build_encoder("resnet50").eval().to(device, memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (BATCH,), device=device)
    kept = torch.rand(BATCH, device=device) > 0.2

    def training(lrs: tuple[float, ...]):
        heads = _Heads(2048, CLASSES, lrs, False, 0).to(device)
        optimizer = torch.optim.SGD(heads.parameters(), lr=0.1, momentum=0.9)

        def step() -> None:
            with torch.no_grad():
                features = encoder(x).features
            heads.loss(features, y, kept).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    layer = torch.nn.Linear(2048, CLASSES).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    def plain() -> None:
        with torch.no_grad():
            features = encoder(x).features
        F.cross_entropy(layer(features), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    work = {"one plain layer": plain, "one rate": training(LRS[:1]), f"{len(LRS)} rates": training(LRS)}
    show(
        "a step of the linear protocol, ResNet-50, 224 px, 1,000 classes",
        interleaved(work, 5),
        count=BATCH,
        unit="image",
        reference="one rate",
    )


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates(device)
    extraction(device)


if __name__ == "__main__":
    main()
