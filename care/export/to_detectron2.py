"""An encoder for detectron2: weights by its names, and the settings that go with them."""

from pathlib import Path
from safetensors.torch import load_file
from care.encoders import Encoder, ResNetEncoder, build_encoder
from care.export.form import Features, Form
from care.export.names import detectron2_name
from care.export.network import ResNetForm, form_of
from care.export.preprocessing import Preprocessing
from care.export.weight_file import WEIGHTS, write_weights
from care.train.foreign import match_architecture
from care.train.naming import DETECTRON2 as NAMING
from care.train.naming import rename_branch
from care.train.weights import load_encoder_state
from shards import storage

SETTINGS = "detectron2.yaml"
_BASIC = (18, 34)


def _lacks(encoder: Encoder) -> str:
    if not isinstance(encoder, ResNetEncoder):
        return "only its ResNets are written"
    form = form_of(encoder)
    has_place = form.stem is None and not form.half
    return "" if has_place else "its ResNets have a 7×7 stem and no half of the channels"


def _settings(form: ResNetForm, preprocessing: Preprocessing) -> str:
    """The part of a configuration that the weights ask for: pixels are RGB from 0 to 255."""
    mean = [round(255 * number, 3) for number in preprocessing.mean]
    std = [round(255 * number, 3) for number in preprocessing.std]
    lines = [
        "MODEL:",
        "  WEIGHTS: encoder.pth",
        f"  PIXEL_MEAN: {mean}",
        f"  PIXEL_STD: {std}",
        "  RESNETS:",
        f"    DEPTH: {form.depth}",
        "    STRIDE_IN_1X1: False",
        "    NORM: SyncBN",
    ]
    if form.wide:
        lines.append("    WIDTH_PER_GROUP: 128")
    if form.depth in _BASIC:
        lines.append("    RES2_OUT_CHANNELS: 64")
    return "\n".join([*lines, "INPUT:", "  FORMAT: RGB", ""])


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    assert isinstance(encoder, ResNetEncoder)
    text = _settings(form_of(encoder), preprocessing)
    storage.write_bytes(folder / SETTINGS, text.encode())
    write_weights(folder, encoder, detectron2_name)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    # by our own reader of detectron2's names: the library is on no package index
    weights = load_file(folder / WEIGHTS)
    names = rename_branch(weights, "", NAMING)
    tensors = {names[name]: tensor for name, tensor in weights.items()}
    encoder = build_encoder(match_architecture(tensors).encoder)
    load_encoder_state(encoder, tensors, source=WEIGHTS)
    encoder.eval()
    return lambda pixels: encoder(preprocessing.normalised(pixels)).features


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    """How detectron2 gets a file that it reads, as Markdown."""
    return f"""detectron2 reads weights from `.pkl` and `.pth` alone, which are pickles, so that you
make one of them yourself, once:

```python
import torch
from safetensors.torch import load_file

weights = {{"model": load_file("{WEIGHTS}"), "matching_heuristics": True}}
torch.save(weights, "encoder.pth")
```

`{SETTINGS}` has what these weights ask for: merge it into the configuration
(`cfg.merge_from_file`), after that of the detector. The heuristics put `res5` where the detector
has it, in the backbone of FPN or in the heads of C4. Everything is trained, as MoCo's protocol
does, with `MODEL.BACKBONE.FREEZE_AT: 0`.
"""


CAVEAT = "detectron2 itself, which is on no package index, was not asked"
DETECTRON2 = Form("", "", _lacks, _write, _load, _usage, CAVEAT)
