"""How libraries name the parts of a ResNet, and torchvision's names for them."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

_POSITIONS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_TRANSFORMERS_BLOCK = re.compile(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(.*)")
_TRANSFORMERS_CONVOLUTION = re.compile(r"layer\.(\d)\.(convolution|normalization)\.(.*)")
_DETECTRON_BLOCK = re.compile(r"res(\d)\.(\d+)\.(.*)")
_DETECTRON_CONVOLUTION = re.compile(r"conv(\d)\.(norm\.)?(.*)")


class Naming(NamedTuple):
    """A way to name the parts of a ResNet.

    Attributes:
        anchor: the first convolution of any block; before it is the ``prefix`` of the network. Any
            block is one, so that a file that lacks some can be told what it lacks.
        rename: torchvision's name of a part, or the name itself of what is no ResNet's.
    """

    anchor: re.Pattern[str]
    rename: Callable[[str], str]


def _from_position(name: str) -> str:
    """Of ``nn.Sequential(*resnet.children())``, whose other children have no weights."""
    first, dot, rest = name.partition(".")
    return _POSITIONS.get(first, first) + dot + rest if dot else name


def _from_transformers(name: str) -> str:
    """Of transformers' ``ResNetModel``, whose stages and convolutions count from 0."""
    name = name.replace("embedder.embedder.convolution.", "conv1.")
    name = name.replace("embedder.embedder.normalization.", "bn1.")
    block = _TRANSFORMERS_BLOCK.fullmatch(name)
    if block is None:
        return name
    rest = block[3].replace("shortcut.convolution.", "downsample.0.")
    rest = rest.replace("shortcut.normalization.", "downsample.1.")
    part = _TRANSFORMERS_CONVOLUTION.fullmatch(rest)
    if part is not None:
        kind = "conv" if part[2] == "convolution" else "bn"
        rest = f"{kind}{int(part[1]) + 1}.{part[3]}"
    return f"layer{int(block[1]) + 1}.{block[2]}.{rest}"


def _from_detectron(name: str) -> str:
    """Of detectron2's ``ResNet``, whose norms are parts of convolutions and stages count from 2."""
    name = name.replace("stem.conv1.norm.", "bn1.").replace("stem.conv1.", "conv1.")
    block = _DETECTRON_BLOCK.fullmatch(name)
    if block is None:
        return name
    rest = block[3].replace("shortcut.norm.", "downsample.1.")
    rest = rest.replace("shortcut.", "downsample.0.")
    part = _DETECTRON_CONVOLUTION.fullmatch(rest)
    if part is not None:
        rest = f"{'bn' if part[2] else 'conv'}{part[1]}.{part[3]}"
    return f"layer{int(block[1]) - 1}.{block[2]}.{rest}"


def _anchor(block: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<prefix>.*\.|){block}\.weight")


TORCHVISION = Naming(_anchor(r"layer[1-4]\.\d+\.conv1"), str)
POSITIONAL = Naming(_anchor(r"[4-7]\.\d+\.conv1"), _from_position)
TRANSFORMERS = Naming(
    _anchor(r"encoder\.stages\.\d\.layers\.\d+\.layer\.0\.convolution"),
    _from_transformers,
)
DETECTRON2 = Naming(_anchor(r"res[2-5]\.\d+\.conv1"), _from_detectron)
NAMINGS = (TORCHVISION, POSITIONAL, TRANSFORMERS, DETECTRON2)


def find_branches(keys: Iterable[str]) -> dict[str, Naming]:
    """Find where ResNets begin.

    Args:
        keys: names of tensors, such as ``module.encoder_q.layer1.0.conv1.weight``.

    Returns:
        For the prefix of each, such as ``module.encoder_q.``, how its parts are named.
    """
    branches = dict[str, Naming]()
    for key in keys:
        for naming in NAMINGS:
            match = naming.anchor.fullmatch(key)
            if match is not None:
                branches.setdefault(match["prefix"], naming)
    return branches


def rename_branch(keys: Iterable[str], prefix: str, naming: Naming) -> dict[str, str]:
    """Name the tensors of a branch as torchvision does.

    Args:
        keys: names of all tensors.
        prefix: that of the branch.
        naming: how its parts are named.

    Returns:
        The new name for each key of the branch, also of its heads.
    """
    return {key: naming.rename(key.removeprefix(prefix)) for key in keys if key.startswith(prefix)}
