"""Write the rooms' lines in docs/house.md anew: ``python -m tests.house_plan``.

What a folder of rooms may not do is written by hand in the page and stays.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "house.md"
PACKAGES = ("shards", "care", "flows")
ROOMS = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)


def room_lines() -> dict[str, str]:
    """What each room says of itself first, by its path."""
    lines = {}
    for path in ROOMS:
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        summary = " ".join(docstring.partition("\n\n")[0].split())
        lines[path.relative_to(ROOT).as_posix()] = summary.replace("``", "`")
    return lines


def listed_lines(page: str) -> dict[str, str]:
    """The rooms that the page lists, with their lines."""
    return dict(re.findall(r"^\| `([\w/.]+\.py)` \| (.*) \|$", page, re.MULTILINE))


def with_rooms(page: str) -> str:
    """The page with the lines of all rooms below the headings of their folders."""
    lines = room_lines()
    sections = re.split(r"(?m)^(?=## )", page)
    return "".join(_with_rooms_of_folder(section, lines) for section in sections)


def _with_rooms_of_folder(section: str, lines: dict[str, str]) -> str:
    """A section of the page with the rooms of the folder in its heading, if it has one."""
    heading = re.match(r"## `([\w/]+)/`", section)
    if not heading:
        return section
    text = re.sub(r"(?m)^\|.*\n", "", section).rstrip()
    rows = [
        f"| `{path}` | {line} |"
        for path, line in lines.items()
        if path.rpartition("/")[0] == heading[1]
    ]
    return "\n".join((text, "", "| room | its job |", "|---|---|", *rows, "", ""))


if __name__ == "__main__":
    PAGE.write_text(with_rooms(PAGE.read_text()))
