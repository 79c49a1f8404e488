"""Evaluation on a frozen encoder (nox -s bench -- evaluate).

Features beside the bare forward pass, ten learning rates beside one.

``python -m tests.bench.evaluate --knn 0.01`` is kNN alone, at that share of ImageNet's size.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
import torch
from torch.nn import functional as F
import shards
from care import build_encoder
from care.evaluate import Features, extract, weighted_knn
from care.evaluate.linear import LRS
from care.evaluate.linear_heads import LinearHeads
from care.evaluate.neighbours import choose_blocks, knn_memory
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
            x = torch.randn(COUNT, 3, SIZE, SIZE, device=device).contiguous(
                memory_format=torch.channels_last
            )
            work = {
                "forward": lambda encoder=encoder, x=x: forward(encoder, list(x.split(BATCH))),
                "extract": lambda encoder=encoder: extract(
                    encoder, data, size=SIZE, batch_size=BATCH
                ),
                "extract, a worker": lambda encoder=encoder: extract(
                    encoder, data, size=SIZE, batch_size=BATCH, workers=1
                ),
            }
            show(
                f"features, {name}, {SIZE} px, fp32",
                interleaved(work, 3),
                count=COUNT,
                unit="image",
                reference="forward",
            )


def rates(device: str) -> None:
    encoder = build_encoder("resnet50").eval().to(device, memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (BATCH,), device=device)
    kept = torch.rand(BATCH, device=device) > 0.2

    def training(lrs: tuple[float, ...]):
        heads = LinearHeads(2048, CLASSES, lrs, False, 0).to(device)
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

    work = {
        "one plain layer": plain,
        "one rate": training(LRS[:1]),
        f"{len(LRS)} rates": training(LRS),
    }
    show(
        "a step of the linear protocol, ResNet-50, 224 px, 1,000 classes",
        interleaved(work, 5),
        count=BATCH,
        unit="image",
        reference="one rate",
    )


def clusters(seed: int, count: int) -> Features:
    """Features of 2,048 channels about the centres of 1,000 classes, without a second copy."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 2048, generator=torch.Generator().manual_seed(99))
    x, y = torch.empty(count, 2048), torch.randint(CLASSES, (count,), generator=generator)
    for rows in torch.arange(count).split(4096):
        noise = torch.randn(len(rows), 2048, generator=generator)
        x[rows] = F.normalize(0.2 * centres[y[rows]] + noise, dim=1)
    return Features(x, y, CLASSES)


def neighbours(device: str, share: float) -> None:
    """Seconds and memory of kNN at a share of ImageNet's size, beside what the formula says."""
    train, val = clusters(0, round(1_281_167 * share)), clusters(1, round(50_000 * share))
    sizes = len(val.x), len(train.x), 2048
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    top1, _ = weighted_knn(train, val, device=device)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = torch.cuda.max_memory_allocated() if device == "cuda" else (after - before) * 1024
    blocks = choose_blocks(*sizes, 20)
    print(f"kNN, {sizes[1]:,} keys, {sizes[0]:,} queries, 2,048 features, k 20, on {device}:")
    print(f"{seconds:.1f} s, top-1 {top1:.1f} %, at most {used / 2**20:,.0f} MiB more; {blocks}")
    print(f"the formula says {knn_memory(blocks, 2048, 20) / 2**20:,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--knn", type=float, help="share of ImageNet's size; kNN alone")
    share = parser.parse_args().knn
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if share:
        neighbours(device, share)
        return
    rates(device)
    extraction(device)


if __name__ == "__main__":
    main()
