"""An encoder as one ONNX file, which takes pixels from 0 to 1 and normalises them itself."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import torch
from jaxtyping import Float
from torch import Tensor, nn
from care.colour_split import ColourSplitEncoder
from care.encoders import Encoder, ResNetEncoder
from care.errors import CareError
from care.export.form import Features, Form
from care.export.preprocessing import Preprocessing
from care.train.photometrics import MEAN, STD

MODEL = "model.onnx"


class FromPixels(nn.Module):
    """An encoder behind the normalisation of its pixels.

    Args:
        encoder: in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        # its own first step, if it has one, goes from these to others'
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """Pooled features [b, d], and the map at the tap [b, c, h2, w2]."""
        encoded = self.encoder((pixels - self.mean) / self.std)
        return encoded.features, encoded.map


def takes_any_size(encoder: Encoder) -> bool:
    """Whether the file takes images of other sizes than that of the training."""
    return isinstance(encoder, ResNetEncoder | ColourSplitEncoder)


def _lacks(encoder: Encoder) -> str:
    return ""  # for any


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    """Write the one file, whose batch and perhaps sides are any."""
    _require()
    height, width = preprocessing.size
    axes = {0: "batch"}
    if takes_any_size(encoder):
        axes |= {2: "height", 3: "width"}
    with _quiet():
        torch.onnx.export(
            FromPixels(encoder).eval(),
            (torch.rand(2, 3, height, width),),
            folder / MODEL,
            input_names=["pixels"],
            output_names=["features", "map"],
            dynamic_shapes={"pixels": axes},
            external_data=False,
            verbose=False,
        )


def _require() -> None:
    """A ``CareError`` where what writes such files is missing."""
    try:
        import onnx  # noqa: F401 (both are asked for by torch)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CareError(
            f"{error.name} is not installed, without which torch writes no ONNX; "
            "pip install 'care-ssl[onnx]'"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own code while it writes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])

    def features(pixels: Tensor) -> Tensor:
        (values,) = session.run(["features"], {"pixels": pixels.numpy()})
        return torch.from_numpy(values)

    return features


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    """How onnxruntime gives features and maps, as Markdown."""
    height, width = preprocessing.size
    sizes = f"images of {height} × {width} px, height × width"
    if takes_any_size(encoder):
        sizes = "images of any size"
    return f"""```python
import onnxruntime

session = onnxruntime.InferenceSession("{MODEL}")
# float32 [batch, 3, height, width], RGB from 0 to 1: normalisation is inside
features, feature_map = session.run(None, {{"pixels": pixels}})
```

It takes any number of {sizes}.
"""


ONNX = Form("onnxruntime", "onnx", _lacks, _write, _load, _usage)
