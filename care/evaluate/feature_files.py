"""Features of a set as a file for other programs: NumPy, Parquet or safetensors.

Row n is image n of the set, and every file says which that is: retrieval, clustering and the search
for near duplicates need no more.
"""

import json
from collections.abc import Callable
from pathlib import Path
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors
import shards
from care.encoders import Encoder
from care.evaluate.features import Features, extract
from care.evaluate.predictions import as_csv
from care.train.precision import Precision
from shards import storage
from shards.bounds import NonNegativeInt, PositiveInt
from shards.errors import Misuse, ShardError
from shards.image_size import ImageSize, image_size


def write_features(
    encoder: Encoder,
    data: shards.ShardSet,
    path: str | Path,
    *,
    size: ImageSize | None = None,
    batch_size: PositiveInt = 256,
    precision: Precision = "fp32",
    workers: NonNegativeInt | None = None,
) -> Features:
    """Features of the centre crop of every image of a set, as a file with names and labels.

    Images need no labels. Pixels are normalised by ImageNet's mean and deviation, and the features
    are those that every evaluation has: pooled, of the encoder in eval mode, not normalised.

    Of OUT.npy, whose array [images, features] is float32, names and classes are in OUT.csv. A
    Parquet file has the columns key, class where the set has any, and features; a safetensors file
    the tensors features and labels, -1 of images without a class, and in its metadata keys and
    classes as JSON.

    Args:
        encoder: used on the device it is on.
        data: set of the images.
        path: of the file to write, .npy, .parquet or .safetensors; or its URL.
        size: of the crops, pixels, or height and width such as 96x192; by default that of the
            encoder's training.
        batch_size: images that are encoded at once.
        precision: of the encoder's arithmetic.
        workers: processes that decode images, by default what is best here.

    Returns:
        What the file has.

    Raises:
        Misuse: the file's suffix is none of these.
        ShardError: pyarrow is missing for Parquet, or the file cannot be written.
    """
    write = _writer(path)
    features = extract(
        encoder,
        data,
        size=image_size(size or encoder.size),
        batch_size=batch_size,
        precision=precision,
        workers=workers,
    )
    write(path, features, data)
    return features


def check_feature_file(path: str | Path) -> None:
    """Refuse a file that ``write_features`` cannot write, before anything is computed.

    Raises:
        Misuse: its suffix is none of .npy, .parquet and .safetensors.
        ShardError: pyarrow is missing for Parquet.
    """
    _writer(path)


def _writer(path: str | Path) -> Callable[[str | Path, Features, shards.ShardSet], None]:
    """What writes a file of that suffix."""
    writers = {".npy": _write_npy, ".parquet": _write_parquet, ".safetensors": _write_safetensors}
    ending = Path(path).suffix.lower()
    if ending not in writers:
        raise Misuse(f"wanted a file {', '.join(writers)} for the features, got {path}")
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401 (told before the features are computed)
        except ImportError:
            raise ShardError(
                f"{path} is to be a Parquet file, which needs pyarrow: "
                "pip install 'care-ssl[parquet]'"
            ) from None
    return writers[ending]


def _class_names(data: shards.ShardSet) -> list[str | None]:
    """The class of every image, None of one that has none."""
    # the last one is for the label -1
    names = [*data.classes, None]
    return [names[label] for label in data.labels.tolist()]


def _write_npy(path: str | Path, features: Features, data: shards.ShardSet) -> None:
    """An array, and beside it a CSV."""
    classes = ["" if name is None else name for name in _class_names(data)]
    table = as_csv(["key", "class"], zip(data.keys.tolist(), classes, strict=True))
    storage.write_bytes(f"{str(path).removesuffix(Path(path).suffix)}.csv", table)
    with storage.writing(path) as file:
        np.save(file, features.x.numpy())


def _write_parquet(path: str | Path, features: Features, data: shards.ShardSet) -> None:
    """A table with a list of floats in each row."""
    import pyarrow as pa
    from pyarrow import parquet

    width = features.x.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.x.numpy().ravel()), width)
    columns = {"key": pa.array(data.keys.tolist(), pa.string())}
    if data.classes:
        columns["class"] = pa.array(_class_names(data), pa.string())
    columns["features"] = lists
    with storage.writing(path) as file:
        parquet.write_table(pa.table(columns), file)


def _write_safetensors(path: str | Path, features: Features, data: shards.ShardSet) -> None:
    """Two tensors, and the names in the metadata."""
    tensors: dict[str, NDArray[np.generic]] = {
        "features": features.x.numpy(),
        "labels": features.y.numpy(),
    }
    names = {"keys": data.keys.tolist(), "classes": list(data.classes)}
    # one entry: several are written in any order
    packed = save_tensors(tensors, {"care": json.dumps(names, sort_keys=True)})
    storage.write_bytes(path, packed)
