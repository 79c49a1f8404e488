"""What a path that leads nowhere may have meant."""

import difflib
from pathlib import Path
from shards import storage


def suggestion(path: str | Path) -> str:
    """The end of a message about a path that is not there.

    Args:
        path: a path or URL.

    Returns:
        "; did you mean …?" with what is called nearly so, and so is everything above it; "" where
        nothing is, and of URLs, which are not listed for this.
    """
    if storage.is_remote(path):
        return ""
    place = Path(path)
    missing = [place, *place.parents]
    missing = [part for part in missing if part.name and not part.exists()]
    if not missing:
        return ""
    # the first part of the path that is not there; what follows it may be right
    wrong = missing[-1]
    try:
        names = [entry.name for entry in wrong.parent.iterdir()]
    except OSError:
        return ""
    for name in difflib.get_close_matches(wrong.name, names):
        meant = wrong.with_name(name) / place.relative_to(wrong)
        if meant.exists():
            return f"; did you mean {meant}?"
    return ""
