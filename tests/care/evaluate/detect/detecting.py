"""A small detector, its settings, and pictures for it."""

import json
import numpy as np
import torch
from flat import take
from PIL import Image
from pycocotools.mask import decode, encode, frPyObjects
from safetensors.torch import load_file
from torchvision.models.resnet import BasicBlock
import shards
from care.encoders import ResNetEncoder
from care.evaluate import detect
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.pictures import PictureBatch
from care.train.machine import Machine
from shards.boxes import BoxSet, Picture

STEPS = 6
SHAPE = {"proposals": 8, "anchor_scale": 2, "channels": 8, "hidden": 16}
SETTINGS = {
    **SHAPE,
    "mask": True,
    "size": 32,
    "iterations": STEPS,
    "batch_size": 4,
    "lr": 0.2,
    "warmup": 2,
    "precise": 3,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


class Quarter(ResNetEncoder):
    """A ResNet with a quarter of the channels."""

    def _make_layer(self, block, planes, *more, **options):
        return super()._make_layer(block, planes // 2, *more, **options)


def make_encoder(seed=0):
    """One with a block in each stage, in eval mode, as it comes from a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Quarter(BasicBlock, [1, 1, 1, 1], small=True, half=True).eval()
    encoder.features //= 2
    return encoder


def make_model(**changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Detector(make_encoder(), 8, DetectorShape(**SHAPE | {"mask": True} | changes))


def judge(encoder, train, val, run, **settings):
    """``detect`` with plain settings."""
    shape = take(DetectorShape, settings)
    machine = take(Machine, settings)
    return detect(encoder, train, val, run, shape=shape, machine=machine, **settings)


def train(sets, run, **changes):
    return judge(make_encoder(), *sets, run, **SETTINGS | changes)


def rows(run):
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


def saved(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def model_at(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def result(run):
    newest = run / "checkpoints" / saved(run)[-1]
    return (run / "losses.jsonl").read_bytes(), *(
        (newest / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")
    )


class CrashError(Exception):
    pass


def crash(*args):
    raise CrashError


def naive_batch(data, step, *, batch, seed):
    """What is to be learned of pictures of 64 × 64 px at 32 px and less; pixels by Pillow alone."""
    images, targets = [], []
    epoch, ids = shards.step_ids(len(data.pictures), batch_size=batch, step=step, seed=seed)
    for n in ids:
        picture = data.pictures[n]
        rng = np.random.default_rng((seed, epoch, int(n)))
        mirrored = rng.integers(2)
        side = [26, 27, 28, 29, 31, 32][rng.integers(6)]
        with Image.open(picture.path) as file:
            pixels = np.asarray(
                file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            ) / np.float32(255)
        scaled = picture.boxes * (side / 64)
        whole = [decode(frPyObjects(one, 64, 64)).astype(bool) for one in picture.masks]
        masks = np.array(
            [Image.fromarray(one).resize((side, side), Image.Resampling.NEAREST) for one in whole],
            np.uint8,
        )
        if mirrored:
            pixels, masks = pixels[:, ::-1].copy(), masks[:, :, ::-1].copy()
            scaled = np.stack(
                [side - scaled[:, 2], scaled[:, 1], side - scaled[:, 0], scaled[:, 3]], 1
            )
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        boxes = torch.from_numpy(scaled.astype(np.float32))
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.from_numpy(picture.labels + 1),
                "masks": torch.from_numpy(masks),
            }
        )
    return PictureBatch(images, targets)


COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 0: (0, 0, 255)}


def paint(path, size, *objects, ground=(40, 40, 40), crowd=(), difficult=()):
    """A picture of rectangles (label, left, top, right, bottom).

    The mask of the first is a polygon, those of the others are RLEs.
    """
    image = Image.new("RGB", size, ground)
    masks = []
    for label, left, top, right, bottom in objects:
        image.paste(COLOURS[label], (left, top, right, bottom))
        mask = np.zeros(size[::-1], np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        masks.append(
            encode(mask) if masks else [[left, top, right, top, right, bottom, left, bottom]]
        )
    image.save(path)
    corners = np.array([corners for _, *corners in objects], np.float32).reshape(-1, 4)
    labels = np.array([label for label, *_ in objects], np.int64)
    flags = (
        np.array([n in which for n in range(len(objects))], np.bool_)
        for which in (difficult, crowd)
    )
    return Picture(path, size, corners, labels, *flags, masks)


def box_set(*pictures):
    return BoxSet(
        pictures[0].path.parent, list(pictures), ("blue", "red", "green"), {}, f"of {len(pictures)}"
    )
