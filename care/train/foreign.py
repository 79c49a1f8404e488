"""Other people's checkpoints: which of its tensors are a ResNet, and which ResNet it is.

A file is read (``read_weights``), and the network in it is found by steps that each have a name:
where ResNets begin (``find_branches``), which of them is the encoder (``choose_branch``), what its
tensors are called here (``rename_branch``), what architecture they have (``match_architecture``).
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
import torch
from safetensors import safe_open
from torch import Tensor
from care.encoders import ENCODERS, STAGES
from care.errors import CareError
from care.train.weights import Misfit, misfit
from shards.progress import say

WANTED = (
    "a run of `care pretrain`, a file of weights (.safetensors, .pth, .pt, .tar, .ckpt), "
    "supervised:NAME or random:NAME"
)
# words in the names of networks
ONLINE = frozenset({"online", "student", "query", "q"})
TARGET = frozenset({"target", "teacher", "momentum", "ema", "key", "k"})
# beginnings of the names of what is put on an encoder; the last is CARE's transformer
HEADS = ("fc", "head", "proj", "pred", "mlp", "neck", "linear", "class", "proto", "trans")
# in nn.Sequential(*resnet.children()), whose others have no weights
POSITIONS = dict(zip("014567", ("conv1", "bn1", *STAGES), strict=True))
# a branch is told by any first convolution of a block, so that one that is missing can be named
ANCHOR = re.compile(r"(?P<prefix>.*\.|)(?P<stage>layer[1-4]|[4-7])\.\d+\.conv1\.weight")


class FileWeights(NamedTuple):
    """What is in a file of weights.

    Attributes:
        note: what ``save_encoder`` has noted, encoder and size; empty in other people's files.
        tensors: all of them by dotted name.
    """

    note: dict[str, Any]
    tensors: dict[str, Tensor]


class Recognised(NamedTuple):
    """A ResNet that was found among tensors.

    Attributes:
        encoder: name of its architecture in ``ENCODERS``.
        tensors: its state by torchvision's keys, with batch counters.
    """

    encoder: str
    tensors: dict[str, Tensor]


class Match(NamedTuple):
    """The architecture that tensors have, or the closest one.

    Attributes:
        encoder: its name.
        tensors: the state, with batch counters of 0 where the file has none.
        misfit: how the state differs from the architecture's.
    """

    encoder: str
    tensors: dict[str, Tensor]
    misfit: Misfit


def recognise_resnet(tensors: Mapping[str, Tensor], source: str | Path) -> Recognised:
    """Find the encoder in other people's checkpoint, and say what was taken for what.

    Args:
        tensors: all of the checkpoint's, by dotted name.
        source: where they are from, for messages.

    Raises:
        CareError: There is no ResNet or more than one, or it is none of ours.
    """
    branches = find_branches(tensors)
    prefix = choose_branch(branches, source)
    names = rename_branch(tensors, prefix, by_position=branches[prefix])
    body = {key: name for key, name in names.items() if not name.startswith(HEADS)}
    match = match_architecture({name: tensors[key] for key, name in body.items()})
    if match.misfit.differing:
        raise CareError(
            f"wanted one of {', '.join(ENCODERS)} under {prefix!r} in {source}, got one that "
            f"differs from {match.encoder}, the closest, by {match.misfit.text}; give it whole, "
            "with only heads beside it"
        )
    others = passed_over((key for key in tensors if key not in body), prefix)
    stem = ", its 3×3 stem taken for one of stride 2" if "small" in match.encoder else ""
    say(
        f"{source}: {match.encoder} under {prefix!r}{stem}; "
        f"passed over: {', '.join(others) or 'nothing'}",
    )
    return Recognised(match.encoder, match.tensors)


def find_branches(keys: Iterable[str]) -> dict[str, bool]:
    """Find where ResNets begin.

    Args:
        keys: names of tensors, such as ``module.encoder_q.layer1.0.conv1.weight``.

    Returns:
        For the prefix of each, such as ``module.encoder_q.``, whether its parts are called by
        their position, as in ``nn.Sequential(*resnet.children())``.
    """
    anchors = (ANCHOR.fullmatch(key) for key in keys)
    return {anchor["prefix"]: anchor["stage"].isdigit() for anchor in anchors if anchor}


def choose_branch(prefixes: Iterable[str], source: str | Path) -> str:
    """Choose the network that gradients trained among those of a checkpoint.

    Of ``module.encoder_q.`` and ``module.encoder_k.`` it is the first one, of ``backbone.`` and
    ``teacher.backbone.``, too.

    Args:
        prefixes: where ResNets begin.
        source: where they are from, for messages.

    Raises:
        CareError: There is none, or the names leave more than one.
    """
    ranks = {prefix: _target_rank(prefix) for prefix in sorted(prefixes)}
    best = min(ranks.values(), default=0)
    chosen = [prefix for prefix, rank in ranks.items() if rank == best]
    if len(chosen) != 1:
        raise CareError(
            f"wanted one ResNet by torchvision's keys in {source}, got {chosen or 'none'}; "
            "save its state dict as a file"
        )
    return chosen[0]


def _target_rank(prefix: str) -> int:
    """−1 for the name of an online network, 1 for that of a target, 0 for what says nothing."""
    words = set(re.split(r"[._]", prefix))
    return bool(TARGET & words) - bool(ONLINE & words)


def rename_branch(keys: Iterable[str], prefix: str, *, by_position: bool) -> dict[str, str]:
    """Name the tensors of a branch as torchvision does.

    Args:
        keys: names of all tensors.
        prefix: that of the branch.
        by_position: whether its parts are called by number: ``4.0.conv1.weight`` is
            ``layer1.0.conv1.weight``.

    Returns:
        The new name for each key of the branch, also of its heads.
    """
    parts = POSITIONS if by_position else {}
    names = {}
    for key in keys:
        if key.startswith(prefix):
            first, dot, rest = key[len(prefix) :].partition(".")
            names[key] = (parts.get(first, first) if dot else first) + dot + rest
    return names


def match_architecture(tensors: Mapping[str, Tensor]) -> Match:
    """Find the encoder of which these tensors are the state, or the one that is closest to it.

    Args:
        tensors: by torchvision's keys, perhaps without the counters of batch norms.
    """
    with torch.device("meta"):
        states = {name: build().state_dict() for name, build in ENCODERS.items()}
    matches = []
    for name, state in states.items():
        counters = {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")}
        with_counters = {**counters, **tensors}
        matches.append(Match(name, with_counters, misfit(state, with_counters)))
    return min(matches, key=lambda match: match.misfit.differing)


def passed_over(keys: Iterable[str], prefix: str) -> list[str]:
    """Shorten the names of tensors that are of no use to those of the networks they are in.

    Args:
        keys: their names, such as ``module.encoder_k.layer1.0.conv1.weight``.
        prefix: of what is used, such as ``module.encoder_q.``.

    Returns:
        What tells them from the prefix, such as ``module.encoder_k``; each once, sorted.
    """
    networks = set()
    for key in keys:
        shared = 0
        while shared < min(len(key), len(prefix)) and key[shared] == prefix[shared]:
            shared += 1
        networks.add(key[:shared] + key[shared:].partition(".")[0])
    return sorted(networks)


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
        note = json.loads((opened.metadata() or {}).get("care", "{}"))
        names = opened.keys()
        return FileWeights(note, {name: opened.get_tensor(name) for name in names})


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
