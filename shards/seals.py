"""JSON documents that hold a digest of all else in them, so that no changed bit goes unnoticed."""

import json
from collections.abc import Mapping
from typing import Any
from shards import storage

SEAL = "own"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its seal.

    Args:
        content: JSON values by name.

    Returns:
        The same, and under ``own`` the digest of it as it is read again: of string keys and lists.
    """
    as_read = json.loads(json.dumps(content))
    return {**content, SEAL: storage.digest(as_read)}


def is_as_sealed(document: Mapping[str, Any]) -> bool:
    """Whether a document is what was sealed; without a seal, as records of before 0.2, it is."""
    if SEAL not in document:
        return True
    content = {name: value for name, value in document.items() if name != SEAL}
    return bool(storage.digest(content) == document[SEAL])
