"""An encoder for transformers: a folder of ``ResNetModel``, with its image processor."""

from pathlib import Path
from typing import Any
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.export.form import Features, Form
from care.export.names import transformers_name
from care.export.network import form_of
from care.export.preprocessing import Preprocessing
from care.export.weight_file import write_weights
from shards import storage
from shards.image_size import sides

_BOTTLENECK = (50, 101, 152)
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BILINEAR = 2  # Pillow's number of it


def _lacks(encoder: Encoder) -> str:
    if not isinstance(encoder, ResNetEncoder):
        return "only its ResNets are written"
    form = form_of(encoder)
    height, width = sides(encoder.size)
    if height != width:
        return "its image processor does not cut such crops out of an image whose shape stays"
    if form.stem is not None:
        return "its ResNets have no 3×3 stem"
    return "its ResNets have no wide 3×3 convolutions" if form.wide else ""


def _config(encoder: ResNetEncoder) -> dict[str, Any]:
    """What ``ResNetConfig`` reads."""
    form = form_of(encoder)
    widths = [encoder.features // 8, encoder.features // 4, encoder.features // 2, encoder.features]
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": widths,
        "depths": [*_BLOCKS[form.depth]],
        "layer_type": "bottleneck" if form.depth in _BOTTLENECK else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        # the stride is on the 3×3 convolution
        "downsample_in_bottleneck": False,
        "dtype": "float32",
    }


def _processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """What its image processor reads."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.resized.shorter},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": preprocessing.size._asdict(),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*preprocessing.mean],
        "image_std": [*preprocessing.std],
    }


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    assert isinstance(encoder, ResNetEncoder)
    storage.write_json(folder / "config.json", _config(encoder))
    storage.write_json(folder / "preprocessor_config.json", _processor(preprocessing))
    write_weights(folder, encoder, transformers_name)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    """Load a folder by ``AutoModel``, which would also draw at random what it does not find."""
    from transformers import AutoModel
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        model, outcome = AutoModel.from_pretrained(folder, output_loading_info=True)
    finally:
        if has_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    differing = [name for names in outcome.values() for name in names]
    if differing:
        raise CareError(f"transformers loads other weights than were written: {differing[:3]}")
    model.eval()
    return lambda pixels: model(preprocessing.normalised(pixels)).pooler_output.flatten(1)


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    return """```python
import torch
from transformers import AutoImageProcessor, AutoModel

prepare = AutoImageProcessor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER")
with torch.no_grad():
    features = model(**prepare(images, return_tensors="pt")).pooler_output.flatten(1)
```
"""


HF = Form("transformers", "hf", _lacks, _write, _load, _usage)
