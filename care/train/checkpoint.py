"""Checkpoints: a directory per step, of safetensors and JSON, all or nothing.

One exists if and only if its manifest, which is written last, verifies.
"""

import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from care.errors import CareError
from care.train.slots import restore_slots, slots_of
from care.train.weights import cpu_copies, load_exactly
from shards import ShardError, storage
from shards.errors import Failure
from shards.progress import warn
from shards.seals import is_as_sealed, sealed

SCHEMA = 1
MODEL_FILE = "model.safetensors"
# what reading a damaged checkpoint raises
DAMAGE = (ShardError, OSError, KeyError, TypeError)


class Checkpoint(NamedTuple):
    """A verified checkpoint on disk.

    Attributes:
        path: its directory.
        step: steps that were done.
        manifest: JSON values, the settings of the run among them.
    """

    path: Path
    step: int
    manifest: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``model`` or ``optimizer``, by parameter name, on the CPU."""
        return load_file(self.path / f"{name}.safetensors")


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Copy what a training needs to go on to the CPU.

    Args:
        model: whose state is saved.
        optimizer: whose slots are saved, see ``care.train.slots``.

    Returns:
        Tensors by name of ``model`` and of ``optimizer``.

    Raises:
        CareError: The optimizer keeps what no checkpoint can hold.
    """
    slots = slots_of(model, optimizer)
    return {"model": cpu_copies(model.state_dict()), "optimizer": cpu_copies(slots)}


def save(
    run: Path,
    state: dict[str, dict[str, Tensor]],
    manifest: dict[str, Any],
    *,
    keep: int = 2,
    keep_every: int = 0,
    intact: Collection[int] | None = None,
) -> None:
    """Commit a checkpoint to ``run/checkpoints/step-…``.

    Args:
        run: local run directory.
        state: a ``snapshot``.
        manifest: JSON values; their ``step`` names the directory.
        keep: number of the newest checkpoints that stay, damaged ones not counted; what is older
            goes only when this one is in place.
        keep_every: steps between those that stay for good; 0: none does.
        intact: steps of the older checkpoints that are not damaged, as far as the caller knows;
            by default their files are read and verified.

    Raises:
        ShardError: The disk refuses; what was saved before is still there.
    """
    folder = run / "checkpoints"
    for step, path in steps_in(folder).items():
        if step >= manifest["step"]:  # damaged, as a run starts from its newest whole one
            shutil.rmtree(path)
    for unfinished in folder.glob(".part-step-*"):  # of a writer that was killed
        shutil.rmtree(unfinished)
    with storage.writing_directory(folder / f"step-{manifest['step']:08d}") as stage:
        try:
            for name, tensors in state.items():
                save_file(tensors, stage / f"{name}.safetensors")
        except SafetensorError as error:  # a full disk, in safetensors' words
            raise ShardError(
                f"cannot write a checkpoint to {folder}: {error}; the last one is still there"
            ) from error
        digests = {file.name: storage.sha256(file) for file in sorted(stage.iterdir())}
        content = {"schema": SCHEMA, "files": digests, **manifest}
        storage.write_json(stage / "manifest.json", sealed(content))
    kept = 0
    for step, path in steps_in(folder).items():
        if kept < keep:
            is_known = step == manifest["step"] or step in (intact or ())
            kept += is_known or (intact is None and _is_intact(path))
        elif not keep_every or step % keep_every:
            shutil.rmtree(path)


def latest(run: Path, *, needs_all: bool = True) -> Checkpoint | None:
    """Find the newest checkpoint of a local run that verifies.

    Damaged ones are named and passed over.

    Args:
        run: local run directory.
        needs_all: whether its training is to go on from there; else the model is enough, and the
            optimizer's file is not read.

    Returns:
        The checkpoint, or None if there is none.

    Raises:
        CareError: It is of a newer version of this package.
    """
    for step, path in steps_in(run / "checkpoints").items():
        try:
            return Checkpoint(path, step, _verified_manifest(path, needs_all=needs_all))
        except DAMAGE as error:
            warn(f"passing over checkpoint {path}: {error}")
    return None


def read(path: Path) -> Checkpoint:
    """Read the checkpoint in a local directory, such as one that ``keep_every`` has kept.

    Only the model is verified: the optimizer's file may have been left behind.

    Raises:
        CareError: It is damaged, or of a newer version of this package.
    """
    try:
        manifest = _verified_manifest(path, needs_all=False)
    except DAMAGE as error:
        raise CareError(f"{path} is a damaged checkpoint: {error}; use another one") from None
    return Checkpoint(path, manifest["step"], manifest)


def _verified_manifest(path: Path, *, needs_all: bool = True) -> dict[str, Any]:
    """The manifest in a checkpoint's directory, once all files are what it says.

    Args:
        path: the directory.
        needs_all: whether the optimizer's file must be right, too.
    """
    manifest: dict[str, Any] = storage.read_json(path / "manifest.json")
    # first, as a newer version may have other keys
    if manifest["schema"] > SCHEMA:
        raise CareError(
            f"{path} is of a newer version (schema {manifest['schema']}, this one reads {SCHEMA}); "
            "upgrade care-ssl"
        )
    if not is_as_sealed(manifest):
        raise ShardError("manifest.json is not the file that was written")
    damaged = []
    for name, digest in manifest["files"].items():
        is_needed = needs_all or name == MODEL_FILE
        if is_needed and storage.sha256(path / name) != digest:
            damaged.append(name)
    if damaged:
        raise ShardError(f"{', '.join(damaged)} does not match the manifest")
    return manifest


def _is_intact(path: Path) -> bool:
    """Whether this version can go on from the checkpoint in a directory."""
    try:
        _verified_manifest(path)
    except (*DAMAGE, Failure):
        return False
    return True


def restore(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    """Copy a checkpoint into a live model and its optimizer, in place, keeping memory formats.

    Args:
        checkpoint: a verified one.
        model: of the same architecture.
        optimizer: of the kind that the checkpoint has slots of; None leaves them behind.

    Raises:
        CareError: It is of another architecture.
    """
    load_exactly(model, checkpoint.tensors("model"), source=str(checkpoint.path))
    if optimizer is not None:
        restore_slots(checkpoint.tensors("optimizer"), model, optimizer)


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, the newest first, whole or not."""
    paths = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
    by_step = {int(path.name.removeprefix("step-")): path for path in paths}
    return dict(sorted(by_step.items(), reverse=True))
