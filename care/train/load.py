"""Encoders by where they come from: our runs and files, other people's checkpoints, ImageNet's labels, or chance."""

import tempfile
from pathlib import Path
import torch
from care.encoders import Encoder, build_encoder
from care.errors import CareError
from care.train.checkpoint import latest
from care.train.foreign import WANTED, read_weights, recognise_resnet
from care.train.mirror import pull
from care.train.supervised import supervised_encoder
from care.train.weights import load_exactly
from shards import storage


def load_encoder(source: str | Path, *, seed: int = 0) -> Encoder:
    """An encoder in eval mode; its ``size`` is that of its training, 224 for what others trained.

    ``source``: see docs/evaluation.md; ``seed`` is that of ``random:NAME``. ``supervised:NAME`` is torchvision's first weights (V1, as the
    paper's supervised rows) or timm's default. Others' files have torchvision's keys or those of ``nn.Sequential(*resnet.children())``,
    perhaps no batch counters; strides are taken for v1.5's, 2 for a 3×3 stem. What cannot be had or differs is a ``CareError``.
    """
    kind, _, name = str(source).partition(":")
    if kind in ("random", "supervised"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return (build_encoder(name) if kind == "random" else supervised_encoder(name)).eval()
    path = storage.locate(source)
    if path.is_dir():
        with tempfile.TemporaryDirectory(
            prefix="care-"
        ) as near:  # other processes read it, too, and one may train it here
            if storage.is_remote(source):
                pull(source, Path(near))
            if (checkpoint := latest(Path(near if storage.is_remote(source) else source))) is None:
                raise CareError(f"{path} holds no checkpoint; wanted {WANTED}")
            recorded, prefix = checkpoint.manifest["settings"], "c.backbone.online."
            tensors = {
                k.removeprefix(prefix): v
                for k, v in checkpoint.tensors("model").items()
                if k.startswith(prefix)
            }
    elif path.is_file():
        with storage.nearby(source) as near:
            recorded, tensors = read_weights(near, source)
        if not recorded:
            recorded["encoder"], tensors = recognise_resnet(tensors, source)
    else:
        raise CareError(f"{path} does not exist; wanted {WANTED}")
    encoder = build_encoder(recorded.get("encoder", ""))
    load_exactly(encoder, tensors, source=str(path))
    encoder.size = int(recorded.get("size", 224))
    return encoder.eval()
