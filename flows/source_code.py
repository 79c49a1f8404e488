"""What the modules of the packages say, without what does not matter, as digests.

The digest of code is one of syntax trees, without docstrings and comments, of the modules that a
module imports, followed statically inside the packages. A module that is renamed or reformatted, or
a docstring that is rewritten, changes no digest; an edit of any helper on the way changes it.
"""

import ast
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
import shards
from shards import storage

PACKAGES = ("shards", "care", "flows")
SOURCE_FOLDER = Path(str(shards.__file__)).parents[1]
_PARSING = threading.Lock()
_TRIES = 5
_FILE_NAME = re.compile(r"[\w./-]+\.(?!py$)\w+")


class Binding(NamedTuple):
    """A name that an import statement gives to something of these packages.

    Attributes:
        local: the name in the module that imports.
        imported: the name where it is defined, or None if ``local`` is a module.
        modules: where to find it: one module, or all that a package re-exports from.
    """

    local: str
    imported: str | None
    modules: tuple[str, ...]


class Module:
    """The source of one module, parsed.

    Args:
        name: in dots.
        path: its file.
        code: the packages that it is part of.
    """

    def __init__(self, name: str, path: Path, code: "Code") -> None:
        self.name = name
        self.path = path
        self.is_package = path.name == "__init__.py"
        self._code = code
        self._tree = _parse(path.read_bytes())
        for node in ast.walk(self._tree):
            _drop_docstring(node)
        self._nodes = [*ast.walk(self._tree)]
        self._import_statements = [node for node in self._nodes if _is_internal(node)]

    @cached_property
    def imported_names(self) -> list[tuple[str, str, str]]:
        """Of each ``from module import name as local`` of these packages: local, module, name."""
        names = []
        for statement in self._import_statements:
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    local = alias.asname or alias.name
                    names.append((local, str(statement.module), alias.name))
        return names

    @cached_property
    def imported_modules(self) -> list[tuple[str, str]]:
        """Of each ``import module as local`` of these packages: local, module.

        ``import a.b`` makes ``a`` known, and of this all that it re-exports.
        """
        modules = []
        for statement in self._import_statements:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    package = alias.name.partition(".")[0]
                    local = alias.asname or package
                    modules += [(local, name) for name in _with_parents(alias.name)]
        return modules

    @cached_property
    def bindings(self) -> list[Binding]:
        """What it imports from these packages, also inside its functions."""
        bindings = []
        for local, module, name in self.imported_names:
            definition, imported = self._code.definition(module, name)
            modules = (definition,) if imported else self._code.modules_behind(definition)
            bindings.append(Binding(local, imported, modules))
        for local, module in self.imported_modules:
            bindings.append(Binding(local, None, self._code.modules_behind(module)))
        return bindings

    @cached_property
    def only_re_exports(self) -> bool:
        """Whether it is a package's ``__init__`` of imports and ``__all__`` alone."""
        return self.is_package and all(
            _is_internal(statement) or _assigns_all(statement) for statement in self._tree.body
        )

    @cached_property
    def own_digest(self) -> str:
        """Digest of its syntax tree, whatever it imports."""
        return storage.digest(self._tree_form(lambda _: ""))

    @cached_property
    def digest(self) -> str:
        """Digest of its syntax tree, of what its imported names stand for, and of its data files.

        An internal import counts by the code it leads to, not by the name of the module there.
        """
        by_name = [
            [binding.local, binding.imported, self._label(binding)]
            for binding in self.bindings
            if binding.imported
        ]
        files = sorted(storage.sha256(path) for path in self._data_files())
        return storage.digest([self._tree_form(self._label), sorted(by_name), files])

    def _label(self, binding: Binding) -> str:
        modules = (self._code.module(name) for name in binding.modules)
        return storage.digest(sorted(module.own_digest for module in modules))

    def _tree_form(self, label: Callable[[Binding], str]) -> Any:
        """The tree as JSON, with ``label`` in the place of names of modules.

        Only what is not empty of a node counts: a newer Python has more fields, empty here.
        """
        by_local = dict[str, set[str]]()
        for binding in self.bindings:
            if binding.imported is None:
                by_local.setdefault(binding.local, set()).add(label(binding))
        labels = {local: " ".join(sorted(texts)) for local, texts in by_local.items()}

        def form(value: Any) -> Any:
            if isinstance(value, list):
                return [form(item) for item in value if not _is_internal(item)]
            if isinstance(value, ast.Name):
                return ["Name", labels.get(value.id, value.id)]
            if not isinstance(value, ast.AST):
                return repr(value)
            fields = [
                [name, form(field)]
                for name, field in ast.iter_fields(value)
                if field not in (None, []) and name != "ctx"
            ]
            return [type(value).__name__, *fields]

        return form(self._tree)

    def _data_files(self) -> Iterator[Path]:
        """Files that a string in it names, beside it or above it in its package."""
        depth = self.name.count(".") + self.is_package
        folders = [*self.path.parents][:depth]
        for node in self._nodes:
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and _FILE_NAME.fullmatch(text):
                yield from (folder / text for folder in folders if (folder / text).is_file())


class Code:
    """The source of the packages below a folder, read when it is asked for.

    Args:
        folder: has the packages ``shards``, ``care`` and ``flows``.
    """

    def __init__(self, folder: Path = SOURCE_FOLDER) -> None:
        self._folder = folder
        self._modules = dict[str, Module]()

    def digest(self, *roots: str) -> str:
        """Digest of all code that some modules run.

        Args:
            roots: each a module in dots, or ``package:name`` for the module that defines a name
                which the package re-exports.
        """
        pending = list[str]()
        for root in roots:
            package, _, name = root.partition(":")
            pending.append(self.definition(package, name)[0] if name else package)
        seen = set[str]()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                for binding in self.module(name).bindings:
                    pending += binding.modules
        return storage.digest(sorted(self.module(name).digest for name in seen))

    def module(self, name: str) -> Module:
        """The module of a name in dots.

        Raises:
            ModuleNotFoundError: There is no such file.
        """
        if name not in self._modules:
            path = self._path(name)
            if path is None:
                raise ModuleNotFoundError(f"no module {name} below {self._folder}")
            self._modules[name] = Module(name, path, self)
        return self._modules[name]

    def definition(self, module: str, name: str) -> tuple[str, str | None]:
        """Where ``from module import name`` leads to.

        Returns:
            The module that defines it and its name there, or a submodule and None. Re-exports are
            followed through packages.
        """
        package = self.module(module)
        if package.is_package:
            for local, origin, original in package.imported_names:
                if local == name:
                    return self.definition(origin, original)
            if self._path(f"{module}.{name}"):
                return f"{module}.{name}", None
        return module, name

    def modules_behind(self, name: str) -> tuple[str, ...]:
        """The modules that importing a module gives: itself, or all that a package re-exports."""
        module = self.module(name)
        if not module.only_re_exports:
            return (name,)
        modules = set[str]()
        for binding in module.bindings:
            modules.update(binding.modules)
        return tuple(sorted(modules))

    def _path(self, name: str) -> Path | None:
        file = self._folder.joinpath(*name.split("."))
        for path in (file.with_suffix(".py"), file / "__init__.py"):
            if path.is_file():
                return path
        return None


def _parse(source: bytes) -> ast.Module:
    """Parse a source file, in one thread at a time.

    Python 3.11 counts the depth of all threads' trees in one place: where another thread parses
    meanwhile, as NumPy does with the header of every file, it raises ``SystemError`` now and then.
    """
    with _PARSING:
        for _ in range(_TRIES - 1):
            with suppress(SystemError):
                return ast.parse(source)
        return ast.parse(source)


def _is_internal(node: Any) -> bool:
    """Whether it is an import statement of something of these packages."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in PACKAGES
    return isinstance(node, ast.Import) and node.names[0].name.partition(".")[0] in PACKAGES


def _with_parents(name: str) -> list[str]:
    """Of ``a.b.c`` also ``a`` and ``a.b``, which an import of it makes known."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _assigns_all(statement: ast.stmt) -> bool:
    """Whether it assigns ``__all__``."""
    if not isinstance(statement, ast.Assign):
        return False
    return any(isinstance(name, ast.Name) and name.id == "__all__" for name in statement.targets)


def _drop_docstring(node: ast.AST) -> None:
    """Remove the first statement of a module, class or function if it is a string."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        del node.body[0]
