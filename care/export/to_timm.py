"""An encoder for timm: a folder as its hub has them, with weights, arguments and preprocessing."""

import math
from pathlib import Path
from typing import Any
from care.encoders import Encoder, ResNetEncoder
from care.export.form import Features, Form
from care.export.network import form_of, library_model
from care.export.preprocessing import Preprocessing
from care.export.weight_file import write_weights
from care.vit import ViTEncoder
from shards import storage
from shards.image_size import sides

CONFIG = "config.json"
# timm's names, whose defaults the arguments then change
_VITS = {"vit-s16": "vit_small_patch16_224", "vit-b16": "vit_base_patch16_224"}
_OTHER_VIT = "vit_small_patch16_224"


def _architecture(encoder: Encoder) -> tuple[str, dict[str, Any]]:
    """The model of timm that an encoder is, and what its function is called with."""
    if isinstance(encoder, ViTEncoder):
        model: Any = encoder.model
        arguments = {
            "patch_size": encoder.patch,
            "embed_dim": encoder.features,
            "depth": len(model.blocks),
            "num_heads": model.blocks[0].attn.num_heads,
            "img_size": [*sides(encoder.size)],
        }
        return _VITS.get(encoder.name, _OTHER_VIT), arguments
    if isinstance(encoder, ResNetEncoder):
        name = form_of(encoder).model_name
        return name, {"channels": [32, 64, 128, 256]} if encoder.half else {}
    # behind the dot is which weights timm would fetch
    return library_model(encoder, "timm").partition(".")[0], {}


def _lacks(encoder: Encoder) -> str:
    if isinstance(encoder, ViTEncoder):
        return ""
    if isinstance(encoder, ResNetEncoder):
        has_stem = form_of(encoder).stem is None
        return "" if has_stem else "its ResNets have no 3×3 stem of one convolution"
    return "" if library_model(encoder, "timm") else "it is no model of it"


def _config(encoder: Encoder, preprocessing: Preprocessing) -> dict[str, Any]:
    """What timm reads of a model in a folder."""
    architecture, arguments = _architecture(encoder)
    height, width = preprocessing.size
    pretrained = {
        "input_size": [3, height, width],
        "fixed_input_size": isinstance(encoder, ViTEncoder),
        "interpolation": "bilinear",
        "crop_pct": _share(preprocessing),
        "crop_mode": "center",
        "mean": [*preprocessing.mean],
        "std": [*preprocessing.std],
        "num_classes": 0,
        "custom_load": False,
    }
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": encoder.features,
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }


def _share(preprocessing: Preprocessing) -> float:
    """The share of the short side that the crop has, such that timm's rounding gives that side."""
    side, resized = preprocessing.size.shorter, preprocessing.resized.shorter
    share = side / resized
    return share if math.floor(side / share) == resized else side / (resized + 0.5)


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    storage.write_json(folder / CONFIG, _config(encoder, preprocessing))
    write_weights(folder, encoder)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    import timm

    model = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True).eval()
    return lambda pixels: model(preprocessing.normalised(pixels))


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    return """```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # strictly
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

Uploaded to a hub it is `hf-hub:USER/NAME`; another size is `img_size=`, a classifier
`num_classes=`.
"""


TIMM = Form("timm", "timm", _lacks, _write, _load, _usage)
