"""An encoder for torchvision: weights by the names of its models, and the lines that load them."""

from pathlib import Path
from typing import NamedTuple
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model
from care.encoders import Encoder, ResNetEncoder
from care.export.form import Features, Form
from care.export.network import form_of, library_model, weights_of
from care.export.preprocessing import Preprocessing
from care.export.weight_file import WEIGHTS, write_weights
from shards import storage

MODEL = "torchvision.json"
# what torchvision has no transform for
_COVERING = """

def resize(image):  # until it just covers {height} × {width} px
    if image.width * {height} >= image.height * {width}:
        size = [{height}, int({height} * image.width / image.height)]
    else:
        size = [int({width} * image.height / image.width), {width}]
    return transforms.functional.resize(image, size)


"""


class Model(NamedTuple):
    """A model of torchvision's without its classifier.

    Attributes:
        name: what ``get_model`` takes.
        classifier: dotted name of the module that is replaced by the identity.
        stem: stride and padding of a 3×3 convolution without pooling in the place of its own, or
            nothing.
    """

    name: str
    classifier: str
    stem: tuple[int, ...] = ()

    def build(self) -> nn.Module:
        """Make it, its weights drawn at random."""
        model: nn.Module = get_model(self.name)
        if self.stem:
            stride, padding = self.stem
            model.conv1 = nn.Conv2d(3, 64, 3, stride=stride, padding=padding, bias=False)
            model.maxpool = nn.Identity()
        model.set_submodule(self.classifier, nn.Identity())
        return model

    def lines(self) -> list[str]:
        """The Python that makes it."""
        lines = [f'model = models.get_model("{self.name}")']
        if self.stem:
            stride, padding = self.stem
            convolution = f"Conv2d(3, 64, 3, stride={stride}, padding={padding}, bias=False)"
            lines += [
                f"model.conv1 = torch.nn.{convolution}",
                "model.maxpool = torch.nn.Identity()",
            ]
        return [*lines, f'model.set_submodule("{self.classifier}", torch.nn.Identity())']


def _model_of(encoder: Encoder) -> Model:
    """The model that an encoder is, of one that torchvision has a place for."""
    if isinstance(encoder, ResNetEncoder):
        form = form_of(encoder)
        return Model(form.model_name, "fc", form.stem or ())
    name = library_model(encoder, "torchvision")
    (classifier,) = _absent_modules(encoder, name)
    return Model(name, classifier)


def _absent_modules(encoder: Encoder, name: str) -> set[str]:
    """The modules of torchvision's model that the encoder does not have: its classifier."""
    with torch.device("meta"):
        expected = get_model(name).state_dict()
    weights = weights_of(encoder)
    return {key.rpartition(".")[0] for key in expected if key not in weights}


def _lacks(encoder: Encoder) -> str:
    if isinstance(encoder, ResNetEncoder):
        return "its models have no half of the channels" if encoder.half else ""
    name = library_model(encoder, "torchvision")
    if not name:
        return "it is no model of it"
    count = len(_absent_modules(encoder, name))
    return "" if count == 1 else f"its model has {count} modules more, wanted one, the classifier"


def _write(encoder: Encoder, preprocessing: Preprocessing, folder: Path) -> None:
    model = _model_of(encoder)
    storage.write_json(folder / MODEL, model._asdict())
    write_weights(folder, encoder)


def _load(folder: Path, preprocessing: Preprocessing) -> Features:
    model = Model(**storage.read_json(folder / MODEL)).build()
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval()
    return lambda pixels: model(preprocessing.normalised(pixels))


def _usage(encoder: Encoder, preprocessing: Preprocessing) -> str:
    """The Python that loads the weights strictly and prepares images, as Markdown."""
    lines = "\n".join(_model_of(encoder).lines())
    height, width = preprocessing.resized
    resize = f"transforms.Resize({height})" if preprocessing.is_square else "resize"
    function = "" if preprocessing.is_square else _COVERING.format(height=height, width=width)
    return f"""```python
import torch
from safetensors.torch import load_file
from torchvision import models, transforms

{lines}
model.load_state_dict(load_file("{WEIGHTS}"))  # strictly
model.eval()
{function}prepare = transforms.Compose(
    [
        {resize},
        transforms.CenterCrop({[*preprocessing.size]}),
        transforms.ToTensor(),
        transforms.Normalize({[*preprocessing.mean]}, {[*preprocessing.std]}),
    ]
)  # of RGB images
```
"""


TORCHVISION = Form("torchvision", "", _lacks, _write, _load, _usage)
