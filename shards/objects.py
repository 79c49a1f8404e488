"""Object stores that fsspec knows, uncached and tried three times; no secrets in their addresses."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from shards.errors import ShardError, StoreError

PAUSES = (
    0.5,
    2.0,
)  # seconds before the second and the third attempt at an operation of an object store
_SECRET = re.compile(
    r"(?i)://([^/?#@:\s]*:(?!:|\d+(/|$))\S*@|\S*[?&;][\w.-]*(sig|signature|token|key|secret|password)=)|AccountKey="
)


def remote(path: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URL, of this process and thread (they must not survive a fork), and the name in it."""
    import fsspec

    refuse_secrets(path)
    try:
        fs, name = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ShardError(
            f"cannot use {path}: {error}; for s3://, az:// and gs:// pip install 'care-ssl[s3]', [azure] or [gcs]"
        ) from None
    return fs, name


def attempt(what: str, path: str | Path, action: Callable[[Any, str], Any]) -> Any:
    """``action(*remote(path))``, three times at most; a ``StoreError`` if it still fails, a ``ShardError`` if it may not be."""
    (fs, name), pauses = remote(path), iter(PAUSES)
    while True:
        try:
            return action(fs, name)
        except Exception as error:  # every store has its own
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise
            said = f"{type(error).__name__} {getattr(error, 'status_code', '')}"  # in S3's words, and Azure's
            denied = isinstance(error, PermissionError) or re.search(
                "Credential|Authent| 40[13]", said
            )
            if denied or (pause := next(pauses, None)) is None:
                message = f"cannot {what} {path}: {type(error).__name__}: {error}; check the address, the credentials, the network"
                raise (ShardError if denied else StoreError)(message) from error
        time.sleep(pause)


def refuse_secrets(path: str | Path) -> None:
    """A ``ShardError``, which does not repeat it, if an address has a password, a key or a signature in it."""
    if _SECRET.search(str(path)):
        how = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_CONNECTION_STRING or GOOGLE_APPLICATION_CREDENTIALS"
        raise ShardError(
            f"wanted an address without secrets, got one with a password, key or signature; {how}, or the store's own file"
        )
