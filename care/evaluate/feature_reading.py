"""Features of a set out of a file that `care features` wrote."""

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple
import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor
from care.errors import CareError
from shards import storage
from shards.errors import ShardError


class StoredFeatures(NamedTuple):
    """What a file of features has.

    Attributes:
        keys: names of the images in their set.
        x: features of each, float32.
    """

    keys: list[str]
    x: Float[Tensor, "n d"]


def is_feature_file(path: str | Path) -> bool:
    """Whether a path is that of features, and not of an encoder's weights.

    Args:
        path: path or URL of a file, or whatever else an encoder is asked for by.
    """
    ending = Path(path).suffix.lower()
    if ending in (".npy", ".parquet"):
        return True
    if ending != ".safetensors" or not storage.locate(path).is_file():
        return False
    with storage.nearby(path) as file, safe_open(file, "pt") as opened:
        return {*opened.keys()} == {"features", "labels"}


def read_features(path: str | Path) -> StoredFeatures:
    """Read what ``write_features`` wrote.

    Args:
        path: of the file .npy, which has a .csv beside it, .parquet or .safetensors; or its URL.

    Raises:
        CareError: It does not exist, or has no features of images.
        ShardError: pyarrow is missing for Parquet.
    """
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    try:
        keys, x = readers[Path(path).suffix.lower()](path)
    except FileNotFoundError as error:
        absent = error.filename or path
        raise CareError(f"{absent} does not exist; wanted a file of `care features`") from None
    except (KeyError, ValueError, TypeError) as error:
        raise CareError(
            f"{path} has no features of images ({error}); wanted a file of `care features`"
        ) from None
    if x.ndim != 2 or len(keys) != len(x):
        raise CareError(
            f"{path} has {len(keys)} names and features {[*x.shape]}; wanted a row for each name"
        )
    return StoredFeatures(keys, x)


def _read_npy(path: str | Path) -> tuple[list[str], Tensor]:
    table = f"{str(path).removesuffix(Path(path).suffix)}.csv"
    # names that are no UTF-8 stay what they are
    text = storage.read_bytes(table).decode(errors="surrogateescape")
    keys = [row["key"] for row in csv.DictReader(io.StringIO(text))]
    x = np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)
    return keys, torch.from_numpy(x.astype(np.float32))


def _read_parquet(path: str | Path) -> tuple[list[str], Tensor]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ShardError(
            f"{path} is a Parquet file, which needs pyarrow: pip install 'care-ssl[parquet]'"
        ) from None
    table = parquet.read_table(io.BytesIO(storage.read_bytes(path)))
    rows = table["features"].combine_chunks()
    x = np.array(rows.flatten(), dtype=np.float32)
    return table["key"].to_pylist(), torch.from_numpy(x.reshape(len(rows), -1))


def _read_safetensors(path: str | Path) -> tuple[list[str], Tensor]:
    with storage.nearby(path) as file, safe_open(file, "pt") as opened:
        names = json.loads(opened.metadata()["care"])
        return names["keys"], opened.get_tensor("features")
