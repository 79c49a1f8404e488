"""What other libraries call the parts of a ResNet that torchvision has names for.

``care.train.naming`` goes the other way, which ``tests/care/export`` compares.
"""

import re

_PART = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(.*)")
_SHORTCUT = re.compile(r"layer(\d)\.(\d+)\.downsample\.(\d)\.(.*)")


def transformers_name(name: str) -> str:
    """The name that transformers' ``ResNetModel`` has for a part.

    Args:
        name: torchvision's, such as ``layer1.0.bn2.weight``.
    """
    part = _PART.fullmatch(name)
    if part is not None:
        kind = "convolution" if part[3] == "conv" else "normalization"
        block = f"encoder.stages.{int(part[1]) - 1}.layers.{part[2]}"
        return f"{block}.layer.{int(part[4]) - 1}.{kind}.{part[5]}"
    shortcut = _SHORTCUT.fullmatch(name)
    if shortcut is not None:
        kind = "convolution" if shortcut[3] == "0" else "normalization"
        block = f"encoder.stages.{int(shortcut[1]) - 1}.layers.{shortcut[2]}"
        return f"{block}.shortcut.{kind}.{shortcut[4]}"
    first, _, rest = name.partition(".")
    kind = {"conv1": "convolution", "bn1": "normalization"}[first]
    return f"embedder.embedder.{kind}.{rest}"


def detectron2_name(name: str) -> str:
    """The name that detectron2's ``ResNet`` has for a part.

    Args:
        name: torchvision's, such as ``layer1.0.bn2.weight``.
    """
    part = _PART.fullmatch(name)
    if part is not None:
        norm = "" if part[3] == "conv" else "norm."
        return f"res{int(part[1]) + 1}.{part[2]}.conv{part[4]}.{norm}{part[5]}"
    shortcut = _SHORTCUT.fullmatch(name)
    if shortcut is not None:
        norm = "" if shortcut[3] == "0" else "norm."
        return f"res{int(shortcut[1]) + 1}.{shortcut[2]}.shortcut.{norm}{shortcut[4]}"
    first, _, rest = name.partition(".")
    norm = {"conv1": "", "bn1": "norm."}[first]
    return f"stem.conv1.{norm}{rest}"
