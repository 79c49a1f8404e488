"""Checkpoints: a directory per step, safetensors and JSON, that exists if and only if its manifest verifies."""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from care.errors import CareError
from care.train.weights import cpu_copies, load_exactly
from shards import ShardError, storage
from shards.terminal import console

SCHEMA = 1


class Checkpoint(NamedTuple):
    """A verified checkpoint on disk."""

    path: Path
    step: int  # steps done
    manifest: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``model`` or ``optimizer``, by parameter name, on the CPU."""
        return load_file(self.path / f"{name}.safetensors")


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Copies on the CPU, by name: ``model``, the state of a model, and ``optimizer``, SGD's momentum buffers."""
    slots = {
        name: optimizer.state[p]["momentum_buffer"]
        for name, p in model.named_parameters()
        if optimizer.state[p]
    }
    return {"model": cpu_copies(model.state_dict()), "optimizer": cpu_copies(slots)}


def save(
    run: Path,
    state: dict[str, dict[str, Tensor]],
    manifest: dict[str, Any],
    *,
    keep: int = 2,
    keep_every: int = 0,
) -> None:
    """Commit a ``snapshot`` as ``run/checkpoints/step-…``; the newest ``keep`` stay and, for good, one every ``keep_every`` steps.

    ``manifest``, JSON values, has its ``step``. Older ones go only when it is in place, not at the ``ShardError`` of a disk that refuses.
    """
    folder = run / "checkpoints"
    ahead = [path for step, path in steps_in(folder).items() if step >= manifest["step"]]
    for left in (
        *ahead,
        *folder.glob(".part-step-*"),
    ):  # damaged, as a run starts from its newest whole one; of a writer that was killed
        shutil.rmtree(left)
    with storage.writing_directory(folder / f"step-{manifest['step']:08d}") as stage:
        try:
            for name, tensors in state.items():
                save_file(tensors, stage / f"{name}.safetensors")
        except SafetensorError as error:  # a full disk, in safetensors' words
            raise ShardError(
                f"cannot write a checkpoint to {folder}: {error}; the last one is still there"
            ) from error
        digests = {file.name: storage.sha256(file) for file in sorted(stage.iterdir())}
        storage.write_json(
            stage / "manifest.json", {"schema": SCHEMA, "files": digests, **manifest}
        )
    for step, old in [*steps_in(folder).items()][keep:]:
        if not keep_every or step % keep_every:
            shutil.rmtree(old)


def latest(run: Path) -> Checkpoint | None:
    """The newest checkpoint in a local run that verifies, or None; damaged ones are named and passed over."""
    for step, path in steps_in(run / "checkpoints").items():
        try:
            manifest = storage.read_json(path / "manifest.json")
            if damaged := [
                name
                for name, digest in manifest["files"].items()
                if storage.sha256(path / name) != digest
            ]:
                raise ShardError(f"{', '.join(damaged)} does not match the manifest")
            if manifest["schema"] > SCHEMA:
                raise CareError(
                    f"{path} is of a newer version (schema {manifest['schema']}, this one reads {SCHEMA}); upgrade care-ssl"
                )
            return Checkpoint(path, step, manifest)
        except (ShardError, OSError, KeyError) as error:
            console.print(f"[yellow]passing over checkpoint {path}: {error}")
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy a checkpoint into a live model and SGD optimizer, in place, keeping memory formats; both as in ``load_exactly``."""
    load_exactly(model, checkpoint.tensors("model"), source=str(checkpoint.path))
    names = dict(model.named_parameters())
    for name, slot in checkpoint.tensors("optimizer").items():
        optimizer.state[names[name]]["momentum_buffer"] = torch.empty_like(names[name]).copy_(slot)


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, the newest first, whole or not."""
    found = {
        int(path.name.removeprefix("step-")): path
        for path in folder.glob("step-*")
        if re.fullmatch(r"step-\d{8,}", path.name)
    }
    return dict(sorted(found.items(), reverse=True))
