"""What other programs leave beside photographs: previews, backups, halves of a Mac's files.

Such a file can have the suffix of an image. It is none of the user's images, its folder is no
class, and leaving it out loses nothing.
"""

import re

# folders that begin with a dot, which Hugging Face's imagefolder leaves out as well, and others
_FOLDERS = re.compile(
    r"\..+"
    r"|__MACOSX|__pycache__|_vti_cnf"
    r"|@eaDir|@Recycle|#recycle|#snapshot|@tmp"
    r"|\$RECYCLE\.BIN|RECYCLER|System Volume Information|found\.\d{3}|lost\+found"
    r"|Network Trash Folder|Temporary Items",
    re.IGNORECASE,
)
# of a Mac's file on a disk that has no place for its attributes: AppleDouble
_FILE_PREFIX = "._"


def is_junk(name: str) -> bool:
    """Whether another program left a file, by the name of it or of a folder that it is in.

    Args:
        name: path of the file in its source, with slashes.
    """
    *folders, file = name.split("/")
    return file.startswith(_FILE_PREFIX) or any(map(_FOLDERS.fullmatch, folders))
