"""Links of the pages, without Sphinx; `nox -s docs` builds the site and is strict."""

import re
from importlib import import_module
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
# pages that users look for by name
WANTED = {
    *("quickstart", "data", "loop", "objectives", "evaluation", "deployment", "results"),
    *("reliability", "performance", "faq"),
}


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a forge and MyST make them."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    names = set[str]()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        names.add(words.strip().replace(" ", "-"))
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}"


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = set[str]()
    for tree in re.findall(r"(?ms)^```\{toctree\}\n(.*?)^```", index):
        listed |= {line for line in tree.splitlines() if line and not line.startswith(":")}
    assert listed == {*(page.stem for page in DOCS), "api/index"} - {"index"}
    assert listed >= WANTED


def test_the_api_has_a_page_of_each_package() -> None:
    pages = [path.read_text() for path in (ROOT / "docs" / "api").glob("*.rst")]
    modules = {name for page in pages for name in re.findall(r"automodule:: ([\w.]+)", page)}
    assert modules >= {"care", "care.train", "care.evaluate", "care.show", "shards", "flows"}
    for name in modules:
        import_module(name)
