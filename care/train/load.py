"""Encoders by where they come from: our runs and files, others' checkpoints, labels, or chance."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
import torch
from care.colour_split import SPACES
from care.encoded import InputNormalisation, bands_of
from care.encoders import ENCODERS, Encoder, ResNetEncoder, build_encoder
from care.errors import CareError
from care.train.checkpoint import MODEL_FILE, Checkpoint, latest, read
from care.train.encoder_source import LIBRARIES, EncoderSource, parse_source
from care.train.foreign import recognise
from care.train.input_normalisation import expect_pixels
from care.train.mirror import STEP_MANIFEST, recorded_manifest
from care.train.stored import USUAL_SIZE, Stored, stored_encoder, stored_size
from care.train.supervised import supervised_encoder
from care.train.weight_files import WANTED, read_note, read_weights
from care.train.weights import load_encoder_state
from care.vit import VITS
from shards import storage
from shards.image_size import ImageSize, image_size
from shards.misspelt import suggestion

# where a fine-tuning has its last training, below its run directory
OF_ALL_LABELS = "all labels"
MANIFEST = "manifest.json"  # of a checkpoint


def load_encoder(
    source: str | Path,
    *,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Encoder:
    """Load an encoder, or make it: in eval mode, on the CPU.

    ``supervised:NAME`` is torchvision's first weights (V1, as the paper's supervised rows) or
    timm's default. Other people's files have the names of torchvision, transformers, detectron2
    or ``nn.Sequential(*resnet.children())``, perhaps no batch counters. What weights do not tell,
    such as the stride of a 3×3 stem, is to be told: ``FILE:resnet18-cifar``.

    Args:
        source: path or URL of a run or of a file of weights, perhaps with the network of several
            that is wanted and its architecture (``FILE:teacher:resnet18-cifar``, ``RUN:target``);
            ``supervised:NAME`` or ``random:NAME``; see docs/evaluation.md.
        seed: of ``random:NAME``.
        mean: of RGB in 0…1, by which others normalised what they trained on; by default ImageNet's.
        std: the deviation, which goes with it.

    Returns:
        The encoder; its ``size`` is that of its training, 224 for what others trained.

    Raises:
        CareError: It cannot be had, or its weights are not those of one network that we know.
    """
    if (mean is None) != (std is None):
        raise CareError("wanted mean and deviation, got one of them; give both or none")
    kind, _, name = str(source).partition(":")
    if mean is not None and kind in ("random", "supervised"):
        raise CareError(f"{source} has the mean and deviation of its library; give none")
    if kind in ("random", "supervised"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = build_encoder(name) if kind == "random" else supervised_encoder(name)
        return made.eval()
    wanted = parse_source(source)
    stored = _read(wanted)
    encoder = build_encoder(stored.encoder)
    if "input.scale" in stored.tensors:  # of a fine-tuning of such an encoder
        encoder.input = InputNormalisation(bands_of(encoder))
    load_encoder_state(encoder, stored.tensors, source=wanted.place)
    encoder.size = stored.size
    encoder.assumed = stored.assumed
    if mean is not None and std is not None:
        if not stored.assumed:
            raise CareError(
                f"{wanted.place} was trained here, on pixels of ImageNet's mean and deviation; "
                "give none"
            )
        expect_pixels(encoder, mean, std)
    elif stored.assumed:
        encoder.assumed += "; input normalised by ImageNet's mean and deviation"
        if isinstance(encoder, ResNetEncoder) and encoder.gray:
            encoder.assumed += ", gray of its three channels"
    return encoder.eval()


def trained_size(source: str | Path) -> ImageSize | None:
    """The size of an encoder's training, as far as its run or file says it.

    No weights are read, and none of a run in an object store are fetched.

    Args:
        source: as for ``load_encoder``.

    Returns:
        Of the views, in pixels; None of what others trained, and of what nobody has.

    Raises:
        CareError: It cannot be had.
    """
    if str(source).startswith(("random:", "supervised:")):
        return None
    place = parse_source(source).place
    path = storage.locate(place)
    if path.is_dir():
        manifest = _manifest_in(place)
        # without one there is no checkpoint either, and reading tells it
        return stored_size(manifest) if manifest else _read(parse_source(source)).size
    if not path.is_file():
        raise _absent(str(path))
    folder, _, name = place.rpartition("/")
    if name == MODEL_FILE and MANIFEST in storage.listing(folder or "."):
        return stored_size(storage.read_json(f"{folder or '.'}/{MANIFEST}"))
    note = read_note(place)
    return image_size(note.get("size", USUAL_SIZE)) if note else None


def _manifest_in(folder: str) -> dict[str, Any] | None:
    """The manifest of the checkpoint that a folder is, or of the newest one that it has."""
    if MANIFEST in storage.listing(folder):
        manifest: dict[str, Any] = storage.read_json(f"{folder}/{MANIFEST}")
        return manifest
    return recorded_manifest(folder) or recorded_manifest(f"{folder}/{OF_ALL_LABELS}")


def _absent(place: str) -> CareError:
    hint = _name_hint(place) or suggestion(place)
    return CareError(f"{place} does not exist; wanted {WANTED}{hint}")


def _name_hint(source: str) -> str:
    """What to say of a source that is the name of an architecture, not of weights."""
    if source in VITS or source.partition(":")[0] in SPACES:
        return f"; {source} is the name of a network: random:{source} has no training"
    if source.partition(":")[0] not in {*ENCODERS, *LIBRARIES}:
        return ""
    return (
        f"; {source} is the name of a network: supervised:{source} has ImageNet's weights,"
        f" random:{source} has none (a model of torchvision or timm needs its tap,"
        " torchvision:MODEL:TAP)"
    )


def is_foreign(source: str | Path) -> bool:
    """Whether an encoder is in a file of other people.

    Args:
        source: as for ``load_encoder``.

    Raises:
        CareError: It cannot be had.
    """
    is_named = str(source).startswith(("random:", "supervised:"))
    return not is_named and trained_size(source) is None


def _read(source: EncoderSource) -> Stored:
    """What is in the place of an encoder."""
    path = storage.locate(source.place)
    if path.is_dir():
        return _read_run(source)
    if path.is_file():
        return _read_file(source)
    raise _absent(str(path))


@contextmanager
def checkpoint_of(place: str) -> Iterator[Checkpoint]:
    """The newest whole checkpoint of a run, or the checkpoint that a folder is.

    Its model is there for the length of the block, whatever there is of its optimizer.

    Args:
        place: folder, path or URL.

    Raises:
        CareError: There is none.
    """
    # not the run's local copy: other processes read that, too, and one may train it here
    with tempfile.TemporaryDirectory(prefix="care-") as near:
        folder = Path(place)
        if storage.is_remote(place):
            folder = _fetched(place, Path(near))
        yield _checkpoint_in(folder, place)


def _read_run(source: EncoderSource) -> Stored:
    """The encoder in a run's newest whole checkpoint, or in the checkpoint of a folder."""
    with checkpoint_of(source.place) as checkpoint:
        stored = stored_encoder(checkpoint, source)
    _refuse_other_name(source, stored.encoder)
    return stored


def _checkpoint_in(folder: Path, source: str | Path) -> Checkpoint:
    """The checkpoint that a local folder is, or has.

    Raises:
        CareError: There is none.
    """
    if (folder / MANIFEST).is_file():
        return read(folder)
    for place in (folder, folder / OF_ALL_LABELS):
        checkpoint = latest(place, needs_all=False)
        if checkpoint is not None:
            return checkpoint
    below = sorted({path.parent.parent for path in folder.glob("**/checkpoints/step-*")})
    advice = f"; there is one in {below[0].relative_to(folder)}" if below else ""
    raise CareError(f"{storage.locate(source)} holds no checkpoint{advice}; wanted {WANTED}")


def _fetched(url: str, near: Path) -> Path:
    """A local copy of the model in the checkpoint at a URL, or in the newest of the run there.

    The optimizer's file stays where it is: it is as large as the model.
    """
    names = storage.listing(url, deep=True)
    if MANIFEST in names:
        _copy_model(url, near)
        return near
    if not any(name.startswith("checkpoints/") for name in names):
        url = f"{url}/{OF_ALL_LABELS}"
        names = storage.listing(url, deep=True)
    matches = [match for name in names if (match := STEP_MANIFEST.fullmatch(name))]
    for match in sorted(matches, key=lambda match: int(match[2]), reverse=True):
        _copy_model(f"{url}/checkpoints/{match[1]}", near / "checkpoints" / match[1])
        if latest(near, needs_all=False) is not None:
            break
    return near


def _copy_model(place: str, folder: Path) -> None:
    """Copy what of a checkpoint is needed to load an encoder."""
    for name in (MANIFEST, MODEL_FILE):
        storage.copy(f"{place}/{name}", folder / name)


def _read_file(source: EncoderSource) -> Stored:
    """The encoder in a file of ours or of other people."""
    folder, _, name = source.place.rpartition("/")
    if name == MODEL_FILE and MANIFEST in storage.listing(folder or "."):
        return _read_run(source._replace(place=folder or "."))
    with storage.nearby(source.place) as near:
        note, tensors = read_weights(near, source.place)
    if note:
        encoder = note.get("encoder", "")
        if not encoder:
            raise CareError(
                f"{source.place} was saved of an encoder without a name, which nothing here can"
                " build; build it yourself and load its state from the file"
            )
        _refuse_other_name(source, encoder)
        return Stored(encoder, image_size(note.get("size", USUAL_SIZE)), tensors)
    recognised = recognise(tensors, source)
    return Stored(recognised.encoder, USUAL_SIZE, recognised.tensors, recognised.assumed)


def _refuse_other_name(source: EncoderSource, encoder: str) -> None:
    """A ``CareError`` if what knows its own architecture is asked for as another one."""
    if source.architecture not in ("", encoder):
        raise CareError(
            f"wanted {source.architecture}, got {source.place}, which says of itself that it is "
            f"{encoder}; leave the name out"
        )
