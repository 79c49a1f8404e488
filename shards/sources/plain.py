"""Folders of images, and CSV files that name them."""

import csv
import io
from pathlib import Path
from typing import Any
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.rejects import Reject
from shards.sources.candidates import Candidate, suffix
from shards.sources.tars import list_tar


def list_folder(src: str | Path, rejects: list[Any]) -> list[Candidate]:
    root, sizes = storage.locate(src), storage.listing(src, deep=True)
    above, names = str(src).rstrip("/"), [name for name in sizes if suffix(name) in SUFFIXES]
    if names:
        rejects += [(Reject.OTHER_FILE, name) for name in sizes.keys() - set(names)]
        tops = (name.partition("/")[0] if "/" in name else None for name in names)
        return [
            Candidate(f"{above}/{name}", name, size=sizes[name], text=top)
            for name, top in zip(names, tops, strict=True)
        ]
    if tars := sorted(name for name in sizes if name.endswith(".tar") and "/" not in name):
        return [image for name in tars for image in list_tar(f"{above}/{name}", rejects)]
    there = (
        "an empty one"
        if root.is_dir()
        else "a file (unpack it first)"
        if root.exists()
        else "nothing of that name"
    )
    got = f"{len(sizes)} files of other kinds than {' '.join(sorted(SUFFIXES))}" if sizes else there
    raise ShardError(
        f"wanted a folder of images, a CSV, a COCO JSON, a VOC list or tars at {src}, got {got}; check the path"
    )


def list_table(location: Path, rejects: list[Any]) -> list[Candidate]:
    try:
        text = storage.read_bytes(location).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ShardError(
            f"{location} cannot be read as a CSV of image and class: {error}"
        ) from None
    images, head = (
        list[Candidate](),
        bool(rows) and rows[0][0].strip().lower() in ("path", "url", "file", "image"),
    )
    for name, *more in (map(str.strip, row) for row in rows[head:]):
        if len(more) > 1:
            raise ShardError(
                f"{location}: wanted rows of image and class, got {[name, *more]}; quote names that have commas"
            )
        path = name if storage.is_remote(name) else str(location.parent / name)
        if suffix(name) in SUFFIXES:
            size = (
                -1
                if storage.is_remote(path) or not Path(path).is_file()
                else Path(path).stat().st_size
            )
            images.append(
                Candidate(path, name, size=size, text=more[0] if more and more[0] else None)
            )
        else:
            rejects.append((Reject.OTHER_FILE, name))
    return images
