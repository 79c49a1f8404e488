"""An encoder as the file that a run leaves: for this package, and by the names of its network."""

from pathlib import Path
from care.encoders import Encoder
from care.export.form import Features, Form
from care.export.preprocessing import Preprocessing
from care.train import load_encoder
from care.train.photometrics import normalize
from care.train.weights import save_encoder

FILE = "encoder.safetensors"


def _lacks(encoder: Encoder) -> str:
    return ""  # for any


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    save_encoder(folder / FILE, encoder, size=encoder.size)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    encoder = load_encoder(folder / FILE)
    return lambda pixels: encoder(normalize(pixels)).features


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    return f"""```python
from care.train import load_encoder

encoder = load_encoder("{FILE}")  # in eval mode; encoder(images).features, .map
```
"""


SAFETENSORS = Form("", "", _lacks, _write, _load, _usage)
