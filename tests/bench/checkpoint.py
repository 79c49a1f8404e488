"""What checkpoints of ResNet-50 and its T-stream cost a training (nox -s bench -- checkpoint).

Also how soon a training goes on from one.
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from care import streams_for
from care.train import checkpoint
from care.train.losses import Losses
from tests.bench.timing import interleaved, keep_memory

BATCH, SIZE, EVERY = 8, 224, 500


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep_memory()

    def fresh() -> tuple[Losses, torch.optim.Optimizer]:
        model = Losses(*streams_for("resnet50", size=SIZE), 100).to(
            device, memory_format=torch.channels_last
        )
        return model, torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], 0.01, momentum=0.9, fused=True
        )

    model, optimizer = fresh()
    x = torch.randn(2, BATCH, 3, SIZE, SIZE, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model((x[0], x[1]))["total"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())

    step()
    calm = interleaved({"": step}, 5)[""]
    extra, held = [], []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        for done in (2, 1_000_000):
            with ThreadPoolExecutor(1) as writer:
                began, steps = time.perf_counter(), 0
                manifest = {"step": done, "settings": {}, "scaler": {}}
                written = writer.submit(
                    checkpoint.save,
                    run,
                    checkpoint.snapshot(model, optimizer),
                    manifest,
                    intact={2},
                )
                held.append(time.perf_counter() - began)
                while not written.done() or not steps:
                    step()
                    steps += 1
                extra.append(time.perf_counter() - began - steps * calm)
        size = sum(
            file.stat().st_size for file in (run / "checkpoints" / "step-00000002").iterdir()
        )
        print(
            f"{size / 1e9:.2f} GB; a step takes {calm:.2f} s, "
            f"a save holds the training for {statistics.median(held):.2f} s"
        )
        slower = statistics.median(extra)
        share = slower / (EVERY * calm)
        print(f"and slows it by {slower:.2f} s in all: {share:.2%} of {EVERY} steps")
        again, slots = fresh()
        for at in (2, 1_000_000):
            for ahead in (run / "checkpoints").glob(f"step-{1_000_000:08d}") if at == 2 else ():
                ahead.rename(run / "later")
            began = time.perf_counter()
            found = checkpoint.latest(run)
            assert found is not None
            assert found.step == at
            checkpoint.restore(found, again, slots)
            print(f"restored to step {at:,} in {time.perf_counter() - began:.2f} s")
            if at == 2:
                (run / "later").rename(run / "checkpoints" / f"step-{1_000_000:08d}")


if __name__ == "__main__":
    main()
