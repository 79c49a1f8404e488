"""Checkpoints: a directory per step, safetensors and JSON, that exists if and only if its manifest verifies."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from care.errors import CareError
from shards import Cache, ShardError, storage
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
    return {"model": _copies(model.state_dict()), "optimizer": _copies(slots)}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # copies: what is saved in the background does not change; contiguous: safetensors refuses channels_last
    return {
        name: t.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, t in tensors.items()
    }


def save(
    run: Path,
    state: dict[str, dict[str, Tensor]],
    manifest: dict[str, Any],
    *,
    keep: int = 2,
    keep_every: int = 0,
    url: str | Path = "",
) -> None:
    """Commit a ``snapshot`` as ``run/checkpoints/step-…``; the newest ``keep`` stay and, for good, one every ``keep_every`` steps.

    All is put to ``url``, too, if that is an object store. ``manifest``, JSON values, has its ``step``. Older ones go only when it is in
    place, not at the ``ShardError`` of a disk that refuses.
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
    if storage.is_remote(url):
        push(run, str(url))


def local_copy(run: str | Path) -> Path:
    """The local directory of a run: itself, or the one that stands for a URL."""
    return (
        Cache().folder.parent / "runs" / storage.digest(str(run))[:16]
        if storage.is_remote(run)
        else Path(run)
    )


def latest(run: str | Path) -> Checkpoint | None:
    """The newest checkpoint under ``run`` that verifies, or None; damaged ones are named and passed over."""
    for step, path in steps_in(local_copy(run) / "checkpoints").items():
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


def save_encoder(path: str | Path, encoder: nn.Module, *, size: int) -> None:
    """Commit an encoder's weights as one safetensors file: torchvision's key names; its name and training size in the metadata."""
    metadata = {
        "care": json.dumps({"encoder": getattr(encoder, "name", ""), "size": size})
    }  # one: several are written in any order
    storage.write_bytes(path, save_tensors(_copies(encoder.state_dict()), metadata))


def digest_of(module: nn.Module) -> str:
    """Hex sha256 of a module's parameters and buffers."""
    return hashlib.sha256(save_tensors(_copies(module.state_dict()))).hexdigest()


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, the newest first, whole or not."""
    found = {
        int(path.name.removeprefix("step-")): path
        for path in folder.glob("step-*")
        if re.fullmatch(r"step-\d{8,}", path.name)
    }
    return dict(sorted(found.items(), reverse=True))


def misfit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """How many of ``tensors``, by key and shape, are not those of ``state``, and in words the first ones; (0, "") if all are."""
    reshaped = {
        name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape
    }
    parts = {
        "missing": state.keys() - tensors.keys(),
        "unexpected": tensors.keys() - state.keys(),
        "of another shape": reshaped,
    }
    told = (
        f"{len(keys)} {what} (first: {', '.join(sorted(keys)[:3])})"
        for what, keys in parts.items()
        if keys
    )
    return sum(map(len, parts.values())), "; ".join(told)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``tensors`` into the module's state; a ``CareError`` names what is missing, unexpected or of another shape."""
    if told := misfit(module.state_dict(), tensors)[1]:
        raise CareError(
            f"{source} is of another architecture: {told}; use the encoder, size and blocks it was trained with"
        )
    module.load_state_dict(tensors)


def push(run: Path, url: str) -> None:
    """Put a local run's checkpoints, each manifest last, and its files to ``url``; checkpoints that are gone here go there too."""
    there, here = (
        storage.listing(url, deep=True),
        [f"checkpoints/{path.name}" for path in steps_in(run / "checkpoints").values()],
    )
    for step in here:
        if f"{step}/manifest.json" not in there:
            for file in sorted(
                (run / step).iterdir(), reverse=True
            ):  # by name the manifest is the first one
                storage.copy(file, f"{url}/{step}/{file.name}")
    for file in run.glob("[!.]*.*"):
        storage.copy(file, f"{url}/{file.name}")
    for name in sorted(there):  # a manifest first: what has none is no checkpoint
        if name.startswith("checkpoints/") and name.rpartition("/")[0] not in here:
            storage.remove(f"{url}/{name}")


def pull(url: str | Path, run: Path) -> None:
    """Make the local ``run`` what is at ``url``: its logs, and the newest checkpoint that is whole."""
    there = storage.listing(url, deep=True)
    steps = {
        name.split("/")[1]
        for name in there
        if re.fullmatch(r"checkpoints/step-\d{8,}/manifest\.json", name)
    }
    for path in steps_in(run / "checkpoints").values():
        if path.name not in steps:  # of another run that had this URL, or never put there
            shutil.rmtree(path)
    for name in [name for name in there if "/" not in name]:
        storage.copy(f"{url}/{name}", run / name)
    for step in sorted(steps, key=lambda step: int(step[5:]), reverse=True):
        folder = run / "checkpoints" / step
        if not folder.exists():
            with storage.writing_directory(folder) as stage:
                for name in [name for name in there if name.startswith(f"checkpoints/{step}/")]:
                    storage.copy(f"{url}/{name}", stage / Path(name).name)
        if (found := latest(run)) and found.path == folder:
            return
