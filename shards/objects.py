"""Object stores that fsspec knows: addresses without secrets, operations tried three times.

Nothing is cached here. What is not about stores alone is in ``storage``.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from shards.errors import ShardError, StoreError

# seconds before the second and the third attempt at an operation
PAUSES = (0.5, 2.0)
_SECRET = re.compile(
    r"(?i)://([^/?#@:\s]*:(?!:|\d+(/|$))\S*@"  # a user's password
    r"|\S*[?&;][\w.-]*(sig|signature|token|key|secret|password)=)"  # of a signed address
    r"|AccountKey="  # of a connection string
)


def refuse_secrets(path: str | Path) -> None:
    """Refuse an address with a password, a key or a signature.

    It would end in logs and results.

    Args:
        path: a path or a URL.

    Raises:
        ShardError: There is a secret in it; the message does not repeat it.
    """
    if _SECRET.search(str(path)):
        raise ShardError(
            "wanted an address without secrets, got one with a password, key or signature; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_CONNECTION_STRING or "
            "GOOGLE_APPLICATION_CREDENTIALS, or the store's own file"
        )


def file_system(path: str | Path) -> tuple[Any, str]:
    """The store that a URL is in.

    Args:
        path: the URL.

    Returns:
        The fsspec file system, of this process and thread (it must not survive a fork), and the
        name in it.

    Raises:
        ShardError: Nothing that is installed knows such URLs, or it has a secret in it.
    """
    import fsspec

    refuse_secrets(path)
    try:
        store, name = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ShardError(
            f"cannot use {path}: {error}; for s3://, az:// and gs:// "
            "pip install 'care-ssl[s3]', [azure] or [gcs], for https:// 'care-ssl[http]'"
        ) from None
    return store, name


def attempt(what: str, path: str | Path, action: Callable[[Any, str], Any]) -> Any:
    """Do something with an object, three times at most.

    Args:
        what: the verb for the message, such as "read".
        path: the URL of the object.
        action: is called with the file system and the name in it.

    Returns:
        What ``action`` returns.

    Raises:
        FileNotFoundError: The object is not there.
        FileExistsError: The object is there and should not be.
        StoreError: The store still fails.
        ShardError: The store denies it.
    """
    store, name = file_system(path)
    pauses = iter(PAUSES)
    while True:
        try:
            return action(store, name)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # every store has its own
            denied = _is_denial(error)
            pause = None if _is_final(error) else next(pauses, None)
            if denied or pause is None:
                kind = ShardError if denied else StoreError
                raise kind(
                    f"cannot {what} {path}: {type(error).__name__}: {error}; "
                    "check the address, the credentials, the network"
                ) from error
        time.sleep(pause)


def _is_final(error: Exception) -> bool:
    """Whether a web server will say the same again: 4xx but for "too slow" and "too many"."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)


def _is_denial(error: Exception) -> bool:
    """Whether a store says that this user may not, in S3's words or in Azure's."""
    text = f"{type(error).__name__} {getattr(error, 'status_code', '')}"
    words = re.search("Credential|Authent| 40[13]", text)
    return isinstance(error, PermissionError) or words is not None
