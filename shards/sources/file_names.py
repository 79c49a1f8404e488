"""Names of image files as tools write them on one machine, and what they are on another."""

import re
from pathlib import Path
from urllib.parse import unquote
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.sources.candidates import suffix

_QUERY_PATH = re.compile(r"[?&]d=([^&]+)")
_LEVELS = 8  # leading parts of a name that may be left out


def name_variants(name: str) -> list[str]:
    """A name as it is written, with slashes, and with ever more leading parts left out.

    Args:
        name: a path of any system, or a URL.

    Returns:
        The variants, the most exact one first.
    """
    in_query = _QUERY_PATH.search(name)
    if in_query:  # Label Studio's /data/local-files/?d=…
        plain = unquote(in_query[1])
    elif "://" in name:
        plain = unquote(name.partition("?")[0].partition("://")[2])
    else:
        plain = name
    parts = [part for part in plain.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    tails = ["/".join(parts[number:]) for number in range(len(parts))]
    if len(tails) > _LEVELS:
        tails = [*tails[: _LEVELS - 1], tails[-1]]
    return [name, *tails]


def stem_of(name: str) -> str:
    """A name without the suffix of an image."""
    end = suffix(name)
    return name[: -len(end)] if end in SUFFIXES else name


def is_file(path: Path) -> bool:
    """Whether it is a file; a name of any text is none."""
    if not storage.is_remote(path):
        return storage.file_size(path) >= 0
    try:
        return path.is_file()
    except ValueError:  # with a zero byte
        return False


def existing_folder(folder: Path) -> Path:
    """A folder that the user names, if it is one.

    Raises:
        ShardError: It is none; of one in a store, nothing is asked.
    """
    if not storage.is_remote(folder) and not folder.is_dir():
        raise ShardError(
            f"wanted a folder of images (--image-root), got {folder}, which is none; check the path"
        )
    return folder


class Looker:
    """Looks for files, at last for the only one of a name in another case or of another suffix."""

    def __init__(self) -> None:
        self._names = dict[Path, dict[str, list[str]]]()

    def file_at(self, path: Path) -> Path | None:
        """The file at a path or the only one that is named much as it, None if there is none."""
        if is_file(path):
            return path
        if storage.is_remote(path):
            return None
        names = self._names_in(path.parent)
        for text in (path.name.lower(), stem_of(path.name.lower())):
            if len(names.get(text, [])) == 1:
                return path.with_name(names[text][0])
        return None

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """The images in a folder by their names in lower case, with and without suffix."""
        if folder not in self._names:
            names = dict[str, list[str]]()
            for name in _image_names(folder):
                for text in (name.lower(), stem_of(name.lower())):
                    names.setdefault(text, []).append(name)
            self._names[folder] = names
        return self._names[folder]


def _image_names(folder: Path) -> list[str]:
    """The sorted names of the images in a local folder, none where there is no folder."""
    try:
        names = [path.name for path in folder.iterdir()]
    except ValueError:  # with a zero byte
        return []
    except OSError as error:
        storage.refuse_disk_error(error, folder)
        return []
    return sorted(name for name in names if suffix(name) in SUFFIXES)
