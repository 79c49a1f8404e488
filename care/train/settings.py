"""The settings of a run: what decides its result, fixed by the call that began it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from care.errors import CareError

Settings = Mapping[str, Any]


def settings_of(manifest: Mapping[str, Any]) -> Settings:
    """Settings in a checkpoint's manifest, with those that version 0.1 did not record."""
    settings: Settings = manifest["settings"]
    if "t_stream" not in settings or "attention" in settings:
        return settings
    heads = "4 heads of 128" if settings["t_stream"] else None  # whatever the encoder was
    return {**settings, "attention": heads, "t_precision": settings["precision"]}


def refuse_other_settings(
    run: str | Path,
    before: Settings,
    now: Settings,
    allow_change: Collection[str],
) -> None:
    """Let nothing go on with other settings than it began with.

    Args:
        run: run directory or URL, for the message.
        before: settings of the run.
        now: those of this call.
        allow_change: names of settings that may differ.

    Raises:
        CareError: One differs; it is named, and those of this call are named first.
    """
    allowed = set(allow_change)
    if "precision" in allowed:
        allowed.add("t_precision")
    for name in {**now, **before}:
        if before.get(name) != now.get(name) and name not in allowed:
            raise CareError(
                f"{run} was trained with {name}={before.get(name)}, this call has "
                f"{name}={now.get(name)}; repeat the first call's settings, allow the change "
                f"(--allow-change {name}), or choose a new run directory"
            )
