"""Other people's checkpoints: which file it is, which network in it, under which names."""

import json
import os
import re
from pathlib import Path
from typing import Any
import torch
from safetensors import safe_open
from torch import Tensor
from care.encoders import ENCODERS, STAGES
from care.errors import CareError
from care.train.weights import misfit
from shards.terminal import console

WANTED = "a run of `care pretrain`, a file of weights (.safetensors, .pth, .pt, .tar, .ckpt), supervised:NAME or random:NAME"

ONLINE, TARGET = (
    {"online", "student", "query", "q"},
    {"target", "teacher", "momentum", "ema", "key", "k"},
)  # in names of networks

HEADS = (
    "fc",
    "head",
    "proj",
    "pred",
    "mlp",
    "neck",
    "linear",
    "class",
    "proto",
    "trans",
)  # beginnings; the last is CARE's transformer

POSITIONS = dict(
    zip("014567", ("conv1", "bn1", *STAGES), strict=True)
)  # in nn.Sequential(*resnet.children())


def recognise_resnet(
    tensors: dict[str, Tensor], source: str | Path
) -> tuple[str, dict[str, Tensor]]:
    # any convolution of a stage gives the prefix away, so that one that is missing can be named
    anchors = (
        re.fullmatch(r"(.*\.|)(layer[1-4]|[4-7])\.\d+\.conv1\.weight", key) for key in tensors
    )
    swaps = {found[1]: POSITIONS if found[2].isdigit() else {} for found in anchors if found}
    scores = {
        prefix: bool(TARGET & (words := {*re.split(r"[._]", prefix)})) - bool(ONLINE & words)
        for prefix in sorted(swaps)
    }
    chosen = [prefix for prefix in scores if scores[prefix] == min(scores.values())]
    if len(chosen) != 1:
        raise CareError(
            f"wanted one ResNet by torchvision's keys in {source}, got {chosen or 'none'}; save its state dict as a file"
        )
    prefix, swap = chosen[0], swaps[chosen[0]]
    names = {
        key: re.sub(r"^\d+(?=\.)", lambda at: swap.get(at[0], at[0]), key[len(prefix) :])
        for key in tensors
        if key.startswith(prefix)
    }
    taken = {name: tensors[key] for key, name in names.items() if not name.startswith(HEADS)}
    with torch.device("meta"):
        states = {name: build().state_dict() for name, build in ENCODERS.items()}
    whole = {
        name: {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")} | taken
        for name, state in states.items()
    }
    fits = {name: misfit(state, whole[name]) for name, state in states.items()}
    name = min(fits, key=lambda name: fits[name][0])
    if fits[name][0]:
        wanted, got = (
            f"one of {', '.join(ENCODERS)} under {prefix!r} in {source}",
            f"one that differs from {name}, the closest",
        )
        raise CareError(
            f"wanted {wanted}, got {got}, by {fits[name][1]}; give it whole, with only heads beside it"
        )
    shared = {
        key: len(os.path.commonprefix([key, prefix]))
        for key in tensors
        if names.get(key) not in taken
    }
    over = (
        ", ".join(sorted({key[:end] + key[end:].partition(".")[0] for key, end in shared.items()}))
        or "nothing"
    )
    stem = ", its 3×3 stem taken for one of stride 2" * ("small" in name)
    console.print(
        f"{source}: {name} under {prefix!r}{stem}; passed over: {over}",
        markup=False,
        soft_wrap=True,
    )
    return name, whole[name]


def read_weights(file: Path, source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    # what save_encoder noted, nothing in others' files, and all tensors by dotted name
    try:
        if not str(source).endswith(".safetensors"):
            return {}, _flat(torch.load(file, map_location="cpu", weights_only=True))
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {}).get("care", "{}")), {
                key: opened.get_tensor(key) for key in opened.keys()
            }
    except Exception as error:  # two parsers meet arbitrary bytes
        if held := re.search(r"GLOBAL (\S+)", str(error)):
            how = f"torch.save(torch.load({Path(source).name!r}, 'cpu', weights_only=False)['state_dict'], 'weights.pth')"
            how = f'convert it on a spare machine by python -c "import torch; {how}" (or another key, or .state_dict() of a network)'
            raise CareError(
                f"{source} holds {held[1]}, and reading objects could run any code; if you trust it, {how}"
            ) from None
        why = str(error).split("Unpickler error:")[-1].strip().partition("\n")[0]
        raise CareError(
            f"{source} is no file of weights ({why or 'empty'}); wanted {WANTED}"
        ) from None


def _flat(value: Any, path: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {path.removeprefix("."): value}
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return {
        name: tensor for key, one in inner for name, tensor in _flat(one, f"{path}.{key}").items()
    }
