"""What CONTRIBUTING asks of the form of the code, where a machine can tell; sizes are printed."""

import ast
import importlib
import statistics
from collections.abc import Iterator
from pathlib import Path
import pytest
from house_plan import PACKAGES, PAGE, ROOT, listed_lines, room_lines, with_rooms

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN = {
    *("one", "found", "known", "asked", "told", "given", "left"),
    *("whole", "both", "own", "done", "said", "beside", "there"),
}
FORMATTER_SKIPS = 5  # tables of numbers whose columns mean something
UNDOCUMENTED_LINES = 12  # a private function that is longer says what it is for

Function = ast.FunctionDef | ast.AsyncFunctionDef


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    if not statements:
        return 0
    last = statements[-1].end_lineno
    assert last is not None
    return last - statements[0].lineno + 1


def assigned_names(function: Function) -> Iterator[str]:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield argument.arg
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize(
    "package",
    ["care", "care.evaluate", "care.export", "care.show", "care.train", "flows", "shards"],
)
def test_a_package_exports_what_it_lists_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    public = set(module.__all__)
    assert len(public) == len(module.__all__)
    assert all(hasattr(module, name) for name in public)
    if package != "flows":  # which imports lazily
        assert imported == public


def test_the_plan_of_the_house_has_every_room_by_its_own_words() -> None:
    assert listed_lines(PAGE.read_text()) == room_lines()
    assert with_rooms(PAGE.read_text()) == PAGE.read_text()


def test_the_formatter_is_switched_off_for_tables_of_numbers_only() -> None:
    skips = [
        f"{place(path)}: {line.strip()}"
        for path in MODULES
        for line in path.read_text().splitlines()
        if "fmt: skip" in line or "fmt: off" in line
    ]
    assert len(skips) <= FORMATTER_SKIPS, skips


def test_long_private_functions_say_what_they_are_for() -> None:
    silent = [
        f"{place(path)}:{function.lineno} {function.name}"
        for path in MODULES
        for function in functions(path)
        if function.name.startswith("_")
        and not function.name.startswith("__")
        and body_lines(function) > UNDOCUMENTED_LINES
        and not ast.get_docstring(function)
    ]
    assert not silent


def test_things_have_nouns_for_names() -> None:
    vague = {
        f"{place(path)}: {function.name} has {name}"
        for path in MODULES
        for function in functions(path)
        for name in assigned_names(function)
        if name in FORBIDDEN
    }
    assert not vague


def test_no_two_modules_of_one_package_import_each_other_in_a_circle() -> None:
    graph = {place(path): internal_imports(path) for path in MODULES}
    state: dict[str, str] = {}

    def visit(room: str, way: tuple[str, ...]) -> None:
        if state.get(room) == "left":
            return
        assert room not in way, " → ".join((*way, room))
        for other in sorted(graph[room]):
            visit(other, (*way, room))
        state[room] = "left"

    for room in graph:
        visit(room, ())


def internal_imports(path: Path) -> set[str]:
    """Modules of the three packages that a module imports, wherever in it; no ``__init__``."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            candidate = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in PACKAGES and candidate.exists():
                rooms.add(place(candidate))
    return rooms


def test_sizes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    files = [len(path.read_text().splitlines()) for path in MODULES]
    bodies = sorted(body_lines(function) for path in MODULES for function in functions(path))
    with capsys.disabled():
        print(
            f"\n{len(files)} files of {statistics.median(files):.0f} lines in the median, "
            f"at most {max(files)}; functions of {statistics.median(bodies):.0f} lines in the "
            f"median, {bodies[len(bodies) * 95 // 100]} at the 95th percentile, "
            f"at most {bodies[-1]}"
        )
    assert files
