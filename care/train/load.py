"""Encoders by where they come from: our runs and files, others' checkpoints, labels, or chance."""

import tempfile
from pathlib import Path
from typing import NamedTuple
import torch
from torch import Tensor
from care.encoders import Encoder, build_encoder
from care.errors import CareError
from care.train.checkpoint import latest
from care.train.foreign import WANTED, read_weights, recognise_resnet
from care.train.mirror import pull
from care.train.supervised import supervised_encoder
from care.train.weights import load_encoder_state
from shards import storage

# in the state of ``Losses``, of which a run's checkpoints are
ONLINE_ENCODER = "c.backbone.online."
# pixels, of what others trained
USUAL_SIZE = 224


class Stored(NamedTuple):
    """An encoder as it was found.

    Attributes:
        encoder: name of its architecture; "" of one that no table knows.
        size: side of the views that it was trained on, pixels.
        tensors: its state.
    """

    encoder: str
    size: int
    tensors: dict[str, Tensor]


def load_encoder(source: str | Path, *, seed: int = 0) -> Encoder:
    """Load an encoder, or make it: in eval mode, on the CPU.

    ``supervised:NAME`` is torchvision's first weights (V1, as the paper's supervised rows) or
    timm's default. Other people's files have torchvision's keys or those of
    ``nn.Sequential(*resnet.children())``, perhaps no batch counters; strides are taken for
    v1.5's, 2 for a 3×3 stem.

    Args:
        source: path or URL of a run or of a file of weights, ``supervised:NAME`` or
            ``random:NAME``; see docs/evaluation.md.
        seed: of ``random:NAME``.

    Returns:
        The encoder; its ``size`` is that of its training, 224 for what others trained.

    Raises:
        CareError: It cannot be had, or its weights are not those of one network that we know.
    """
    kind, _, name = str(source).partition(":")
    if kind in ("random", "supervised"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = build_encoder(name) if kind == "random" else supervised_encoder(name)
        return made.eval()
    path = storage.locate(source)
    if path.is_dir():
        stored = _read_run(source)
    elif path.is_file():
        stored = _read_file(source)
    else:
        raise CareError(f"{path} does not exist; wanted {WANTED}")
    encoder = build_encoder(stored.encoder)
    load_encoder_state(encoder, stored.tensors, source=str(path))
    encoder.size = stored.size
    return encoder.eval()


def _read_run(source: str | Path) -> Stored:
    """The online encoder in a run's newest whole checkpoint."""
    # not the run's local copy: other processes read that, too, and one may train it here
    with tempfile.TemporaryDirectory(prefix="care-") as near:
        folder = Path(source)
        if storage.is_remote(source):
            folder = Path(near)
            pull(source, folder)
        checkpoint = latest(folder)
        if checkpoint is None:
            raise CareError(f"{storage.locate(source)} holds no checkpoint; wanted {WANTED}")
        tensors = checkpoint.tensors("model")
    online = {
        key.removeprefix(ONLINE_ENCODER): tensor
        for key, tensor in tensors.items()
        if key.startswith(ONLINE_ENCODER)
    }
    settings = checkpoint.manifest["settings"]
    return Stored(settings.get("encoder", ""), int(settings.get("size", USUAL_SIZE)), online)


def _read_file(source: str | Path) -> Stored:
    """The encoder in a file of ours or of other people."""
    with storage.nearby(source) as near:
        note, tensors = read_weights(near, source)
    if note:
        return Stored(note.get("encoder", ""), int(note.get("size", USUAL_SIZE)), tensors)
    recognised = recognise_resnet(tensors, source)
    return Stored(recognised.encoder, USUAL_SIZE, recognised.tensors)
