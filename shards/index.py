"""What a shard set is, and the index that says what is in it.

The samples are in tars as WebDataset reads them: ``key.jpg``, and ``key.cls`` with the label.
Beside the tars, ``samples.npy`` has a ``ROW`` and ``keys.txt`` a line for every sample, in their
order; ``annotations.json`` may have their boxes. ``index.json``, committed last, holds the rest and
all digests; the ``wids`` package reads it as its shard index. It reads at most 100 bytes of a
member's name, and so no set has longer ones, see ``shards.sources.keys``.
"""

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from shards import storage
from shards.errors import ShardError
from shards.hold_out import HoldOut
from shards.key_lines import KeyLines
from shards.misspelt import suggestion
from shards.pixel_report import PixelCounts, PixelReport, parse_report
from shards.seals import SEAL, is_as_sealed

_NAMED = 5  # sets in a message
_HEADER = 4096  # bytes in which a header of numpy's ends
# bytes of a side file that stays where it is: of more than ten million samples
LARGE = 1 << 28
SCHEMA = 2
# of sets of four bands: earlier versions would take the fourth one for transparency
SCHEMA_OF_FOUR_BANDS = 3
ROW = np.dtype(
    [
        ("offset", "<u8"),  # where a sample's bytes begin in its tar
        ("length", "<u4"),  # how many there are
        ("crc32", "<u4"),
        ("label", "<i4"),  # its class number; -1: none
        ("orientation", "u1"),  # EXIF's, 1…8; 0: not looked at
    ]
)


class Shard(NamedTuple):
    """One tar.

    Attributes:
        url: its name in the folder of the set.
        nsamples: how many samples it has.
        filesize: how many bytes it has.
        sha256: digest of its bytes, in hex.
    """

    url: str
    nsamples: int
    filesize: int
    sha256: str


class Index(NamedTuple):
    """The content of a set.

    Attributes:
        path: path or URL of its folder.
        shards: the tars, in order.
        samples: a ``ROW`` for each sample [count]; of a large set they are in its file, mapped.
        keys: sample names [count]; an array, since a million ``str`` cost every worker 100 MB, and
            of a large set the lines of its file.
        classes: the names of the classes.
        seen: number of files of the source, kept or left out.
        rejects: the files that were left out, by reason.
        plan: a digest of the names and sizes of the input and of the options.
        seed: seed of the order.
        sha256: digests of the side files, by name.
        digest: digest of ``index.json``, the set's identity.
        starts: the number of every shard's first sample, and the count [shards + 1].
        hold_out: which part of its source it is, where some images of each class were held out.
        contents: a digest of what was read of every image, see ``shards.contents``; "" where the
            checksums of the samples say it, and in sets of versions before 0.2.
        pixels: how the images became 8 bits and three channels, and how many show little.
    """

    path: Path
    shards: tuple[Shard, ...]
    samples: NDArray[Any]
    keys: NDArray[Any] | KeyLines
    classes: tuple[str, ...]
    seen: int
    rejects: Mapping[str, Sequence[str]]
    plan: str
    seed: int
    sha256: Mapping[str, str]
    digest: str
    starts: NDArray[np.int64]
    hold_out: HoldOut | None = None
    contents: str = ""
    pixels: PixelReport = PixelReport({}, PixelCounts())


def read_index(path: str | Path, *, for_audit: bool = False) -> Index:
    """Read the index of a set and check it.

    Args:
        path: path or URL of the set's folder.
        for_audit: whether the side files are all checked, also the annotations, but not the sizes
            of the tars.

    Returns:
        The index.

    Raises:
        ShardError: There is no set, an unfinished or damaged one, or one of another schema.
    """
    root = storage.locate(path).absolute()
    sizes = storage.listing(root)
    if "index.json" not in sizes:
        raise ShardError(f"wanted a shard set at {path}, got {_instead_of_a_set(path, sizes)}")
    document = _read_document(root / "index.json")
    try:
        side_files = _read_side_files(root, document, annotations=for_audit)
        index = _parse(root, document, side_files)
        _check(index, document)
        if not for_audit:
            _check_sizes(index, sizes)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ShardError(
            f"the shard set {path} is damaged: {error}; "
            "copy it again, or remove it and build it again"
        ) from error
    return index


def webdataset_key(name: str) -> str:
    """The key that WebDataset gives a tar member.

    It is the path up to the first dot of the file name.
    """
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _instead_of_a_set(path: str | Path, names: Collection[str]) -> str:
    """What is at a path that holds no index, and what to do about it.

    Args:
        path: path or URL.
        names: of the files in the folder of that path.
    """
    if any(name.startswith(".shard-") for name in names):
        return "an unfinished one; run its build again, it goes on where it stopped"
    root = storage.locate(path)
    if not names and not root.exists():
        if (root.parent / "index.json").is_file():
            return (
                f"nothing of that name, but {root.parent} is a set itself; name that, or build it "
                "anew with --val-share 0.1 for a set to train and one to evaluate on"
            )
        return f"nothing of that name; check the path{suggestion(path)}"
    sets = _sets_in(root)
    if sets:
        return f"a folder of sets; name one of them: {', '.join(sets)}"
    return (
        "no index.json; if it is images, build a set of them and name that:"
        f" care shards build {path} DEST"
    )


def _sets_in(root: Path) -> list[str]:
    """The sets in a folder, those to train on first."""
    if not root.is_dir():
        return []
    sets = [folder for folder in root.iterdir() if (folder / "index.json").is_file()]
    sets.sort(key=lambda folder: (not folder.name.startswith("train"), folder.name))
    return [str(folder) for folder in sets[:_NAMED]]


def _read_document(file: Path) -> dict[str, Any]:
    """The JSON of an index, or a ``ShardError`` if it has another schema."""
    document = storage.read_json(file)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema not in (SCHEMA, SCHEMA_OF_FOUR_BANDS):
        raise ShardError(
            f"{file} is not the index of a shard set with schema {SCHEMA}, it has {schema}; "
            "check the path, upgrade care-ssl, or build the set again"
        )
    return dict(document)


def _read_side_files(
    root: Path, document: dict[str, Any], *, annotations: bool
) -> dict[str, bytes | mmap]:
    """The files beside the index, with the annotations or without; large ones are mapped.

    Raises:
        ValueError: One of them is not the file that was written.
    """
    sha256s: dict[str, str] = document["sha256"]
    names = [name for name in sha256s if annotations or name != "annotations.json"]
    side_files = {name: storage.map_bytes(root / name, at_least=LARGE) for name in names}
    # at a time: of a hundred million samples each takes more than a second
    with ThreadPoolExecutor(len(names)) as pool:
        digests = pool.map(_sha256, side_files.values())
        for name, digest in zip(names, digests, strict=True):
            if digest != sha256s[name]:
                raise ValueError(f"{name} is not the file that was written")
    return side_files


def _sha256(data: bytes | mmap) -> str:
    """The digest of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _parse(root: Path, document: dict[str, Any], side_files: dict[str, bytes | mmap]) -> Index:
    """The index that a document and its side files say."""
    shards = tuple(Shard(**shard) for shard in document["shardlist"])
    return Index(
        path=root,
        shards=shards,
        samples=_rows(side_files["samples.npy"]),
        keys=_keys(side_files["keys.txt"]),
        classes=tuple(document["classes"]),
        seen=document["counts"]["seen"],
        rejects=document["rejects"],
        plan=document["plan"],
        seed=document["seed"],
        sha256=document["sha256"],
        digest=hashlib.sha256(storage.read_bytes(root / "index.json")).hexdigest(),
        starts=np.cumsum([0, *(shard.nsamples for shard in shards)]),
        hold_out=HoldOut(**document["hold_out"]) if "hold_out" in document else None,
        contents=document.get("contents", ""),
        pixels=parse_report(document.get("pixels", {})),
    )


def _rows(data: bytes | mmap) -> NDArray[Any]:
    """The array in a file of numpy's, which of a large one stays there."""
    if len(data) < LARGE:
        return np.asarray(np.load(io.BytesIO(data)))
    header = io.BytesIO(data[:_HEADER])
    np.lib.format.read_magic(header)
    (count,), _, dtype = np.lib.format.read_array_header_1_0(header)
    return np.frombuffer(data, dtype, count, header.tell())


def _keys(data: bytes | mmap) -> NDArray[Any] | KeyLines:
    """The lines of a file, which of a large one stay there."""
    if len(data) >= LARGE:
        return KeyLines(data)
    return np.array(data[:].decode().split("\n")[:-1], np.dtypes.StringDType())


def _check(index: Index, document: dict[str, Any]) -> None:
    """A ``ValueError`` if an index does not agree with itself."""
    if SEAL not in document or not is_as_sealed(document):
        raise ValueError("index.json is not the file that was written")
    count = int(index.starts[-1])
    counts = (len(index.samples), len(index.keys))
    if index.samples.dtype != ROW or counts != (count, count):
        raise ValueError("its sample counts differ")
    rejected = sum(map(len, index.rejects.values()))
    if index.seen != len(index.samples) + rejected:
        raise ValueError("seen is not kept + rejected")


def _check_sizes(index: Index, sizes: dict[str, int]) -> None:
    """A ``ValueError`` if a tar is not there or has another size."""
    for shard in index.shards:
        if sizes.get(shard.url) != shard.filesize:
            raise ValueError(f"{shard.url} does not have its {shard.filesize} bytes")
