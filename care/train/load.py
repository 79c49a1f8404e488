"""Encoders by where they come from: our runs and files, other people's checkpoints, ImageNet's labels, or chance."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any
import torch
from safetensors import safe_open
from torch import Tensor
from torchvision import models
from care.encoders import ENCODERS, STAGES, Encoder, TappedEncoder, build_encoder
from care.errors import CareError
from care.train.checkpoint import latest, load_exactly, misfit, pull
from care.train.views import MEAN, STD
from shards import storage
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


def load_encoder(source: str | Path, *, seed: int = 0) -> Encoder:
    """An encoder in eval mode; its ``size`` is that of its training, 224 for what others trained.

    ``source``: see docs/evaluation.md; ``seed`` is that of ``random:NAME``. ``supervised:NAME`` is torchvision's first weights (V1, as the
    paper's supervised rows) or timm's default. Others' files have torchvision's keys or those of ``nn.Sequential(*resnet.children())``,
    perhaps no batch counters; strides are taken for v1.5's, 2 for a 3×3 stem. What cannot be had or differs is a ``CareError``.
    """
    kind, _, name = str(source).partition(":")
    if kind in ("random", "supervised"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return (build_encoder(name) if kind == "random" else _supervised(name)).eval()
    path = storage.locate(source)
    if path.is_dir():
        with tempfile.TemporaryDirectory(
            prefix="care-"
        ) as near:  # other processes read it, too, and one may train it here
            if storage.is_remote(source):
                pull(source, Path(near))
            if (checkpoint := latest(near if storage.is_remote(source) else source)) is None:
                raise CareError(f"{path} holds no checkpoint; wanted {WANTED}")
            recorded, prefix = checkpoint.manifest["settings"], "c.backbone.online."
            tensors = {
                k.removeprefix(prefix): v
                for k, v in checkpoint.tensors("model").items()
                if k.startswith(prefix)
            }
    elif path.is_file():
        with storage.nearby(source) as near:
            recorded, tensors = _read(near, source)
        if not recorded:
            recorded["encoder"], tensors = _resnet(tensors, source)
    else:
        raise CareError(f"{path} does not exist; wanted {WANTED}")
    encoder = build_encoder(recorded.get("encoder", ""))
    load_exactly(encoder, tensors, source=str(path))
    encoder.size = int(recorded.get("size", 224))
    return encoder.eval()


def _resnet(tensors: dict[str, Tensor], source: str | Path) -> tuple[str, dict[str, Tensor]]:
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
    }  # noqa: RUF071
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


def _read(file: Path, source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    # what save_encoder noted, nothing in others' files, and all tensors by dotted name
    try:
        if not str(source).endswith(".safetensors"):
            return {}, _flat(torch.load(file, map_location="cpu", weights_only=True))
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {}).get("care", "{}")), {
                key: opened.get_tensor(key) for key in opened.keys()
            }  # noqa: SIM118
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


def _supervised(name: str) -> Encoder:
    encoder = build_encoder(name)  # its errors come first
    source, _, rest = name.partition(":")
    model = (
        {"resnet50x2": "wide_resnet50_2"}.get(source, source)
        if source in ENCODERS
        else rest.partition(":")[0]
    )
    wanted = (
        "a name that torchvision or timm has some for, and a network or a cache to get them from"
    )
    try:
        if source == "timm":
            import timm

            trained: Any = timm.create_model(model, pretrained=True)
            if (trained.pretrained_cfg["mean"], trained.pretrained_cfg["std"]) != (MEAN, STD):
                raise ValueError(
                    "timm's are for pixels of other means and deviations than ImageNet's, which evaluations use"
                )
        else:
            weights = next(iter(models.get_model_weights(model)))
            wanted = (
                f"{weights.url} in {torch.hub.get_dir()}/checkpoints: put it there by other means"
            )
            trained = models.get_model(model, weights=weights)
    except (OSError, RuntimeError, ValueError) as error:
        raise CareError(
            f"no ImageNet weights for {name!r} ({' '.join(str(error).split()):.300}); wanted {wanted}"
        ) from None
    if isinstance(encoder, TappedEncoder):
        return TappedEncoder(trained, encoder.tap, name=name)
    load_exactly(
        encoder,
        {key: value for key, value in trained.state_dict().items() if not key.startswith("fc.")},
        source=name,
    )
    return encoder
