"""The files that a work leaves in its folder, as its result names them."""

from flows.result import Result
from shards import storage


def outputs(out: str, *names: str) -> dict[str, Result]:
    """Sizes and digests of files.

    Args:
        out: their folder, path or URL.
        *names: of the files, perhaps with those of folders before them.
    """
    sizes = storage.listing(out, deep=any("/" in name for name in names))
    return {
        name: {"size": sizes[name], "sha256": storage.sha256(f"{out}/{name}")} for name in names
    }
