"""Encoders by where they come from: our runs and files, others' checkpoints, labels, or chance."""

import tempfile
from pathlib import Path
import torch
from care.encoders import Encoder, build_encoder
from care.errors import CareError
from care.train.checkpoint import Checkpoint, latest, read
from care.train.foreign import WANTED, read_weights, recognise_resnet
from care.train.mirror import pull
from care.train.stored import USUAL_SIZE, Stored, stored_encoder
from care.train.supervised import supervised_encoder
from care.train.weights import load_encoder_state
from shards import storage

# where a fine-tuning has its last training, below its run directory
OF_ALL_LABELS = "all labels"
MANIFEST = "manifest.json"  # of a checkpoint


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
    """The encoder in a run's newest whole checkpoint, or in the checkpoint of a folder."""
    # not the run's local copy: other processes read that, too, and one may train it here
    with tempfile.TemporaryDirectory(prefix="care-") as near:
        folder = Path(source)
        if storage.is_remote(source):
            folder = _fetched(str(source), Path(near))
        return stored_encoder(_checkpoint_in(folder, source), source)


def _checkpoint_in(folder: Path, source: str | Path) -> Checkpoint:
    """The checkpoint that a local folder is, or has.

    Raises:
        CareError: There is none.
    """
    if (folder / MANIFEST).is_file():
        return read(folder)
    for place in (folder, folder / OF_ALL_LABELS):
        checkpoint = latest(place)
        if checkpoint is not None:
            return checkpoint
    below = sorted({path.parent.parent for path in folder.glob("**/checkpoints/step-*")})
    advice = f"; there is one in {below[0].relative_to(folder)}" if below else ""
    raise CareError(f"{storage.locate(source)} holds no checkpoint{advice}; wanted {WANTED}")


def _fetched(url: str, near: Path) -> Path:
    """A local copy of the checkpoint at a URL, or of the run there with its newest one."""
    names = storage.listing(url)
    if MANIFEST in names:
        for name in (MANIFEST, "model.safetensors"):
            storage.copy(f"{url}/{name}", near / name)
        return near
    if not any(name.startswith("checkpoints/") for name in storage.listing(url, deep=True)):
        url = f"{url}/{OF_ALL_LABELS}"
    pull(url, near)
    return near


def _read_file(source: str | Path) -> Stored:
    """The encoder in a file of ours or of other people."""
    place, _, name = str(source).rpartition("/")
    if name == "model.safetensors" and MANIFEST in storage.listing(place or "."):
        return _read_run(place or ".")
    with storage.nearby(source) as near:
        note, tensors = read_weights(near, source)
    if note:
        return Stored(note.get("encoder", ""), int(note.get("size", USUAL_SIZE)), tensors)
    recognised = recognise_resnet(tensors, source)
    return Stored(recognised.encoder, USUAL_SIZE, recognised.tensors)
