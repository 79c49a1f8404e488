"""Small detectors, with images and targets for them."""

import torch
from care import resnet18
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape


def make(head, *, small=True, half=True, classes=3, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = changes.pop("encoder", None) or resnet18(small=small, half=half).eval()
        shape = {"proposals": 16, "anchor_scale": 4, "channels": 8, "hidden": 16} | changes
        return Detector(encoder, classes, DetectorShape(head=head, **shape))


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def target(*rows, size, mask=False):
    """Boxes (label, left, top, right, bottom); the mask is the left half of the box."""
    corners = torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(rows), *size, dtype=torch.uint8)
    for of, (_, left, top, right, bottom) in zip(masks, rows, strict=True):
        of[top:bottom, left : (left + right) // 2] = 1
    labels = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    return {"boxes": corners, "labels": labels} | ({"masks": masks} if mask else {})


TARGETS = [
    target((1, 4, 4, 24, 28), (3, 30, 10, 60, 40), size=(48, 64), mask=True),
    target(size=(40, 40), mask=True),
]
