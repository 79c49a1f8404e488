"""Sets beside one another that belong together, such as ``train`` and ``val``, and their pixels.

Each of them may have been built by a call of its own, which has decided by its own images how these
become 8 bits of red, green and blue.
"""

from pathlib import Path
from shards import storage
from shards.errors import ShardError
from shards.pixel_report import PixelReport, differences, parse_report
from shards.sources.parts import part_of


def sibling_notes(dest: str | Path, pixels: PixelReport) -> list[str]:
    """Where the images of a set became other pixels than those of the sets beside it.

    Args:
        dest: folder of the set; beside one in an object store nothing is looked for.
        pixels: what the set says of its own.

    Returns:
        What differs, one line each; nothing where the folder is not called as a part.
    """
    if storage.is_remote(dest) or part_of(Path(dest).name) is None:
        return []
    folder = Path(dest).absolute()
    lines = list[str]()
    for sibling in sorted(folder.parent.iterdir()):
        if sibling == folder or part_of(sibling.name) is None:
            continue
        other = _report_of(sibling)
        if other is not None:
            lines += differences(other, pixels, names=(sibling.name, folder.name))
    return lines


def _report_of(folder: Path) -> PixelReport | None:
    """What a set says of its pixels, None of a folder that is none, or a damaged one."""
    if not (folder / "index.json").is_file():
        return None
    try:
        return parse_report(storage.read_json(folder / "index.json").get("pixels", {}))
    except (ShardError, OSError, TypeError, AttributeError, ValueError):
        # its own commands say what is wrong with it
        return None
