"""fsspec's object stores: nothing cached, every operation tried three times."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.errors import ShardError

PAUSES = (0.5, 2.0)
"""Seconds before the second and the third attempt at an operation of an object store."""


def remote(path: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URL, of this process and thread (they must not survive a fork), and the name in it."""
    import fsspec

    try:
        fs, name = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ShardError(f"cannot use {path}: {error}; for s3://, az:// and gs:// pip install 'care-ssl[s3]', [azure] or [gcs]") from None
    return fs, name


def attempt(what: str, action: Callable[[], Any]) -> Any:
    """``action()``, tried again after each of ``PAUSES``; a ``FileNotFoundError`` at once, else a ``ShardError`` that names ``what``."""
    pauses = iter(PAUSES)
    while True:
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # every store has its own
            if isinstance(error, PermissionError) or (pause := next(pauses, None)) is None:
                got = f"{type(error).__name__}: {error}"
                raise ShardError(f"cannot {what}: {got}; check the address, the credentials, the network") from error
        time.sleep(pause)


def fetch(path: str | Path, to: Path) -> None:
    """Copy an object to the local file ``to``, which is not made durable."""
    fs, name = remote(path)
    attempt(f"read {path}", lambda: fs.get_file(name, str(to)))
