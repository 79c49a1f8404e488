"""The documentation as a site: `nox -s docs` builds it, any warning is an error."""

import functools
import tomllib
from pathlib import Path
from typing import Any
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
# pages of the site that are files of the repository's root, where a forge looks for them
ROOT_PAGES = {
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "reporting": "SECURITY.md",
}
_project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = "CARE"
author = "the authors of this package"
version = release = _project["version"]
project_copyright = "the authors of this package"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "results"]
# pages link to headings of each other, as a forge names them
myst_heading_anchors = 4
# of docs/results.md, whose tables are headed as they are in other pages
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# of a docstring, `a command` is code
default_role = "code"

# quotes and dots alone: two dashes begin an option
smartquotes_action = "qe"
html_theme = "furo"
html_title = f"CARE {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1b57c7", "color-brand-content": "#1b57c7"},
    "dark_css_variables": {"color-brand-primary": "#7aa7ff", "color-brand-content": "#7aa7ff"},
}


def read_root_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text of a file of the root in its page's place, and link to such pages.

    Args:
        app: of the build.
        page: name of the page that was read.
        source: its text, alone in a list, which is changed.
    """
    if page in ROOT_PAGES:
        path = ROOT / ROOT_PAGES[page]
        source[0] = path.read_text().replace("](docs/", "](")
        app.env.note_dependency(str(path))
    for name, file in ROOT_PAGES.items():
        for link in (f"](../{file}", f"]({file}"):
            source[0] = source[0].replace(link, f"]({name}.md")


def skip_fields(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave a class's fields to its docstring, which lists them with what they are."""
    is_field = not callable(member) and not isinstance(member, property | functools.cached_property)
    return True if what == "class" and is_field else None


def without_marks(annotations: str) -> str:
    """Write types without what `Annotated` marks them with: bounds, how they are typed.

    Args:
        annotations: of a signature, as text.
    """
    before, mark, rest = annotations.partition("Annotated[")
    if not mark:
        return annotations
    depth, comma = 0, len(rest)
    for place, letter in enumerate(rest):
        depth += (letter in "[(<") - (letter in "])>")
        if depth == 0 and letter == ",":
            comma = min(comma, place)
        if depth < 0:
            break
    return f"{before}{without_marks(rest[:comma])}{without_marks(rest[place + 1 :])}"


def plain_signature(
    app: Sphinx, what: str, name: str, member: Any, options: Any, *texts: str | None
) -> tuple[str, str] | None:
    """Give a signature and what it returns as a reader wants them."""
    if texts[0] is None:
        return None
    signature, returns = (without_marks(text or "") for text in texts)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_root_page)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", plain_signature)
