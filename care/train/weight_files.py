"""Files of weights, whoever wrote them: their tensors by dotted name; no code in them is run."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from care.errors import CareError
from shards import storage

WANTED = (
    "a run of `care pretrain`, a file of weights (.safetensors, .pth, .pt, .tar, .ckpt), "
    "supervised:NAME or random:NAME"
)


class FileWeights(NamedTuple):
    """What is in a file of weights.

    Attributes:
        note: what ``save_encoder`` has noted, encoder and size; empty in other people's files.
        tensors: all of them by dotted name.
    """

    note: dict[str, Any]
    tensors: dict[str, Tensor]


def read_weights(file: Path, source: str | Path) -> FileWeights:
    """Read all tensors of a file, whoever wrote it, and run no code in it.

    Args:
        file: a local one.
        source: where it is from, for its kind and for messages.

    Raises:
        CareError: It holds other objects than tensors, or is no file of weights.
    """
    try:
        if str(source).endswith(".safetensors"):
            return _read_safetensors(file)
        return FileWeights({}, flat_tensors(torch.load(file, "cpu", weights_only=True)))
    except Exception as error:  # two parsers meet arbitrary bytes
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CareError(_conversion_advice(source, refused[1])) from None
        why = str(error).split("Unpickler error:")[-1].strip().partition("\n")[0]
        raise CareError(
            f"{source} is no file of weights ({why or 'empty'}); wanted {WANTED}"
        ) from None


def _read_safetensors(file: Path) -> FileWeights:
    with safe_open(file, "pt") as opened:
        note = _note_in(opened.metadata())
        names = opened.keys()
        return FileWeights(note, {name: opened.get_tensor(name) for name in names})


def read_note(source: str | Path) -> dict[str, Any]:
    """What ``save_encoder`` has noted in a file, whose tensors are not read.

    Args:
        source: path or URL of the file.

    Returns:
        The note, empty of other people's files, and of one that is damaged, which is told where
        its weights are read.
    """
    if not str(source).endswith(".safetensors"):
        return {}
    try:
        with storage.nearby(source) as file, safe_open(file, "pt") as opened:
            return _note_in(opened.metadata())
    except (SafetensorError, ValueError):
        return {}


def _note_in(metadata: dict[str, str] | None) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((metadata or {}).get("care", "{}"))
    return note


def _conversion_advice(source: str | Path, held: str) -> str:
    """What to do with a file that holds an object of a class."""
    loaded = f"torch.load({Path(source).name!r}, 'cpu', weights_only=False)"
    command = f"import torch; torch.save({loaded}['state_dict'], 'weights.pth')"
    return (
        f"{source} holds {held}, and reading objects could run any code; if you trust it, convert "
        f'it on a spare machine by python -c "{command}" (or another key, or .state_dict() of a '
        "network)"
    )


def flat_tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Collect the tensors in nested dictionaries and lists, by dotted path.

    ``{"epoch": 3, "nets": [{"conv.weight": w}]}`` gives ``{"nets.0.conv.weight": w}``.
    """
    if isinstance(value, Tensor):
        return {path.removeprefix("."): value}
    tensors: dict[str, Tensor] = {}
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        items = ()
    for key, inner in items:
        tensors |= flat_tensors(inner, f"{path}.{key}")
    return tensors
