"""The one file of weights that most forms have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from safetensors.torch import save
from torch import Tensor
from care.encoders import Encoder
from care.export.network import weights_of
from shards import storage

# what transformers and timm look for
WEIGHTS = "model.safetensors"


def write_weights(
    folder: Path, encoder: Encoder, rename: Callable[[str], str] | None = None
) -> None:
    """Write the weights of an encoder into a folder.

    Args:
        folder: a local one.
        encoder: whose weights.
        rename: gives the name of a tensor in the file; by default it stays.
    """
    tensors: Mapping[str, Tensor] = weights_of(encoder)
    if rename is not None:
        tensors = {rename(name): tensor for name, tensor in tensors.items()}
    # transformers wants to be told whose tensors these are
    storage.write_bytes(folder / WEIGHTS, save({**tensors}, {"format": "pt"}))
