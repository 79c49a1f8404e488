"""What a run or a pipeline was asked for, on what and by which versions: lines of a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from care.show.rows import Row
from care.train.mirror import recorded_settings
from care.train.origin import Origin, read_origin
from shards import storage

ENCODER_FILE = "encoder.safetensors"
# in which a run has the command lines that began it and made it longer
COMMAND_FILE = "command.json"
# a setting's name on the page, and how the settings of a run are written there
_SETTINGS = {
    "encoder": "{encoder}",
    "size": "views of {size} px",
    "length": "{steps:,} steps of {batch_size:,} images",
    "optimizer": "{optimizer}",
    "learning rate": "{lr:g} for 256 images, after a warm-up of {warmup:,} steps",
    "weight decay": "{weight_decay:g}",
    "target's momentum": "{momentum:g} at first",
    "objective": "{objective}",
    "attention weight λ": "{attention_weight:g}",
    "precision": "{precision}",
    "seed": "{seed}",
}


def settings_of_run(run: str | Path) -> dict[str, str]:
    """The settings of a run by what its newest checkpoint and its ``about.json`` say.

    Args:
        run: run directory or URL.

    Returns:
        Texts by what they are; nothing of a folder that holds no run of `care pretrain`.

    Raises:
        ShardError: A file is damaged.
    """
    settings = recorded_settings(run)
    if settings is None or "objective" not in settings:
        return {}
    texts = _texts(settings)
    origin = read_origin(run)
    if origin is not None:
        texts |= _texts_of_origin(origin, settings)
    if ENCODER_FILE in storage.listing(run):
        texts["trained encoder"] = f"{run}/{ENCODER_FILE}"
    return texts


def command_of_run(run: str | Path) -> str:
    """The commands of a run, line by line; "" of one of Python code or of an earlier version.

    Args:
        run: run directory or URL.
    """
    return "\n".join(kept_commands(run))


def kept_commands(run: str | Path) -> list[str]:
    """The commands that began a run and made it longer, in their order.

    Args:
        run: run directory or URL.
    """
    if COMMAND_FILE not in storage.listing(run):
        return []
    return [str(command) for command in storage.read_json(f"{run}/{COMMAND_FILE}")["commands"]]


def settings_of_pipeline(results: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """The settings of a pipeline by its ``results.json``.

    Args:
        results: what the file holds.
        rows: its evaluations.

    Returns:
        Texts by what they are; nothing where the file is that of one evaluation.
    """
    encoder = results.get("encoder")
    if not isinstance(encoder, dict):
        return {}
    settings = {"encoder": encoder.get("name"), "size": encoder.get("size")}
    texts = _texts({**settings, **results.get("settings", {}), "seed": results.get("seed")})
    for name, recipe in results.get("recipes", {}).items():
        texts[name] = recipe["text"]
    versions: Mapping[str, str] = next((row["versions"] for row in rows if row.get("versions")), {})
    if versions:
        texts["versions"] = _versions(versions)
    texts["trained encoder"] = f"{ENCODER_FILE} in this folder, SHA-256 {encoder.get('sha256')}"
    return texts


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that there are, each as its text."""
    known_settings = {name: value for name, value in settings.items() if value is not None}
    texts = {}
    for name, form in _SETTINGS.items():
        try:
            texts[name] = form.format_map(known_settings)
        except (KeyError, ValueError):
            # an earlier version did not record it, or another task has no such setting
            continue
    return texts


def _texts_of_origin(origin: Origin, settings: Mapping[str, Any]) -> dict[str, str]:
    """What is known of the images of a run, its beginning and its versions."""
    epochs = settings["steps"] * settings["batch_size"] / origin.images
    return {
        "images": f"{origin.images:,} of {origin.data}, each seen about {epochs:,.1f} times",
        "began": origin.began,
        "versions": _versions(origin.versions),
    }


def _versions(versions: Mapping[str, str]) -> str:
    """Packages with their versions."""
    return ", ".join(f"{name} {number}" for name, number in versions.items())
