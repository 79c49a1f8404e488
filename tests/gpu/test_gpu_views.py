"""Views on a GPU: the CPU's colours, and copies from pinned memory."""

import json
import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from care.train import VIEWS, batches
from care.train.photometrics import apply_photometrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
DEVICE = "cuda"


def close(on_device, on_cpu):
    """Equal but for a few pixels: rounding decides which side of solarize's threshold they are."""
    differences = (on_device.cpu() - on_cpu).abs()
    assert differences.gt(1e-3).float().mean() < 1e-3
    assert differences.mean() < 1e-3


@pytest.mark.parametrize("view", VIEWS)
def test_colours_are_those_of_the_cpu(view):
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, generator=generator)
    numbers = torch.from_numpy(np.stack([view.draw(0, 0, n, 0).colour for n in range(64)]))
    close(apply_photometrics(crops.to(DEVICE), numbers), apply_photometrics(crops, numbers))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_cpu(data, workers):
    settings = {"size": 64, "batch_size": 16, "steps": 4, "workers": workers}
    streams = batches(data, device=DEVICE, **settings), batches(data, **settings)
    for (step, views), (same_step, same_views) in zip(*streams, strict=True):
        assert step == same_step
        for view, same_view in zip(views, same_views, strict=True):
            assert view.device.type == DEVICE
            close(view, same_view)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_copied_from_pinned_memory(data, tmp_path, workers):
    stream = batches(data, size=64, batch_size=16, steps=4, workers=workers, device=DEVICE)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in stream:
            pass
        torch.cuda.synchronize()
    recorded.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    copies = [event for event in events if event["name"].startswith("Memcpy HtoD")]
    if not copies:
        pytest.skip("the profiler may not look at this device")
    both_views = 2 * 16 * 3 * 64 * 64  # bytes of a batch
    large = [event["name"] for event in copies if event["args"]["bytes"] >= both_views // 2]
    assert large == ["Memcpy HtoD (Pinned -> Device)"] * 4
