"""What an encoder is, wherever its file or run lies: the digest of what is there now."""

import re
from contextlib import suppress
from typing import Any
from shards import storage

# a name that says all
_NAME = re.compile("(random|supervised):.*")


def encoder_identity(source: str) -> Any:
    """What an encoder is: its file or run, and which network there it is asked for as.

    Args:
        source: a run, a weights file, or a name such as ``random:resnet50``.

    Returns:
        JSON, which is another one when a run has gone on or a file has changed.
    """
    if _NAME.fullmatch(source):
        return source
    from care.train.encoder_source import parse_source  # torch, for stages that have an encoder

    place, *parts = parse_source(source)
    identity = file_identity(place)
    return [identity, *parts] if any(parts) else identity


def file_identity(url: str) -> str:
    """The digest of a file, or of a run that goes on: of its newest checkpoint; else its place.

    A checkpoint's own folder is known by its manifest, and a fine-tuning by its last training.

    Args:
        url: path or URL.
    """
    if "manifest.json" in storage.listing(url):
        return storage.sha256(f"{url}/manifest.json")
    for run in (url, f"{url}/all labels"):
        files = storage.listing(f"{run}/checkpoints", deep=True)
        manifests = [name for name in files if name.endswith("/manifest.json")]
        if manifests:
            return storage.sha256(f"{run}/checkpoints/{max(manifests)}")
    with suppress(FileNotFoundError, IsADirectoryError):
        return storage.sha256(url)
    return url
