"""The digest of a stage's code: what redoes it, and what does not."""

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pytest
from flows.evaluations import EVALUATIONS
from flows.identity import input_identity
from flows.source_code import PACKAGES, SOURCE_FOLDER, Code
from flows.works import WORKS

KNN = ("flows.works.judging", "care.evaluate:knn")
FINETUNE = ("flows.works.judging", "care.evaluate:finetune")
PRETRAIN = ("flows.works.training",)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with copies of the three packages, to be edited."""
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE_FOLDER / name, tmp_path / name, ignore=ignored)
    return tmp_path


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., str]:
    """The digest of ``care.start`` in packages that have these modules and no others."""
    count = 0

    def digest(**modules: str) -> str:
        nonlocal count
        count += 1
        for name in PACKAGES:
            (tmp_path / f"{count}" / name).mkdir(parents=True)
            (tmp_path / f"{count}" / name / "__init__.py").write_text("")
        for name, text in modules.items():
            path = tmp_path / f"{count}" / f"{name.replace('__', '/', 1)}.py"
            path.write_text(text)
        return Code(tmp_path / f"{count}").digest("care.start")

    return digest


@pytest.fixture(scope="module")
def unedited() -> Code:
    """The packages as they are; each of their modules is parsed once."""
    return Code()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def renamed(text: str, package: str, old: str, new: str) -> str:
    """A module's text where another module of a package has a new name."""
    text = re.sub(rf"from {package}\.{old} import", f"from {package}.{new} import", text)
    return re.sub(rf"(from {package} import [^\n]*)\b{old}\b", rf"\1{new} as {old}", text)


def test_a_renamed_module_redoes_nothing(packages: Path, unedited: Code) -> None:
    for package, old, new in (
        ("care.evaluate", "neighbours", "vicinity"),
        ("care.train", "weights", "tensors"),
        ("shards", "storage", "places"),
    ):
        folder = packages.joinpath(*package.split("."))
        (folder / f"{old}.py").rename(folder / f"{new}.py")
        for path in packages.glob("**/*.py"):
            path.write_text(renamed(path.read_text(), package, old, new))
    edited = Code(packages)
    for roots in (KNN, FINETUNE, PRETRAIN):
        assert edited.digest(*roots) == unedited.digest(*roots)


def test_a_module_that_is_renamed_where_it_is_used_redoes_nothing(small) -> None:
    digests = {
        small(
            care__start=f"from care import {name}\nprint({name}.v)\n",
            **{f"care__{name}": "v = 1\n"},
        )
        for name in ("one", "two")
    }
    assert len(digests) == 1


def test_comments_docstrings_and_layout_redo_nothing(packages: Path, unedited: Code) -> None:
    path = packages / "care" / "evaluate" / "neighbours.py"
    tree_of_text = path.read_text()
    path.write_text('"""Said otherwise."""\n\n# a remark\n' + tree_of_text.partition('"""\n')[2])
    edit(path, "import torch\n", "\n\nimport torch  # why not\n")
    assert Code(packages).digest(*KNN) == unedited.digest(*KNN)


def test_a_helper_two_imports_away_redoes_the_stage(packages: Path, unedited: Code) -> None:
    with (packages / "care" / "evaluate" / "neighbours.py").open("a") as file:
        file.write("\nMORE = 1\n")
    edited = Code(packages)
    assert edited.digest(*KNN) != unedited.digest(*KNN)
    assert edited.digest(*PRETRAIN) == unedited.digest(*PRETRAIN)


def test_another_evaluation_redoes_nothing(packages: Path, unedited: Code) -> None:
    with (packages / "care" / "evaluate" / "finetune.py").open("a") as file:
        file.write("\nMORE = 1\n")
    edited = Code(packages)
    assert edited.digest(*KNN) == unedited.digest(*KNN)
    assert edited.digest(*FINETUNE) != unedited.digest(*FINETUNE)


def test_imports_inside_functions_count(small) -> None:
    start = "def go():\n    from care.helper import help\n    return help()\n"
    assert small(care__start=start, care__helper="def help(): return 1\n") != small(
        care__start=start, care__helper="def help(): return 2\n"
    )


def test_a_name_of_a_package_counts_alone_and_the_package_counts_whole(small) -> None:
    package = "from care.one import first\nfrom care.two import second\n"
    one, two = "def first(): return 1\n", "def second(): return 2\n"
    modules = {"care____init__": package, "care__one": one}
    for start, counts in (("from care import first\n", False), ("import care\n", True)):
        digests = {
            small(care__start=start, care__two=text, **modules)
            for text in (two, two.replace("2", "3"))
        }
        assert len(digests) == 1 + counts


def test_it_does_not_matter_by_which_way_a_name_is_imported(small) -> None:
    modules = {"care____init__": "from care.one import first\n", "care__one": "first = 1\n"}
    digests = {
        small(care__start=f"from {module} import first\nprint(first)\n", **modules)
        for module in ("care", "care.one")
    }
    assert len(digests) == 1


def test_a_name_that_means_something_else_counts(small) -> None:
    modules = {"care__one": "value = 1\n", "care__two": "value = 2\n"}
    for start in (
        "from care.{} import value\nfrom care.{} import value as other\n",
        "from care import {} as used\nfrom care import {} as unused\nprint(used.value)\n",
    ):
        first = small(care__start=start.format("one", "two"), **modules)
        assert small(care__start=start.format("two", "one"), **modules) != first


def test_an_init_with_code_of_its_own_counts_and_one_of_imports_does_not(small) -> None:
    start = "from care import first\n"
    import_it = "from care.one import first\n"
    modules = {"care__start": start, "care__one": "first = 1\n", "care__two": "second = 2\n"}
    plain = small(care____init__=import_it, **modules)
    more = f"{import_it}from care.two import second\n__all__ = ['first', 'second']\n"
    assert small(care____init__=more, **modules) == plain
    assert small(care____init__="first = 1\n", **modules) != small(
        care____init__="first = 2\n", **modules
    )


def test_packages_that_import_from_each_other_are_followed(small) -> None:
    modules = {
        "care____init__": "from shards import deep\nfrom care.one import first\n",
        "shards____init__": "from shards.below import deep\nfrom care import first\n",
        "shards__below": "deep = 1\n",
        "care__one": "from shards import deep\nfirst = deep\n",
    }
    start = "from care import first, deep\n"
    assert small(care__start=start, **modules) != small(
        care__start=start, **modules | {"shards__below": "deep = 2\n"}
    )


def test_data_files_that_a_string_names_count_by_content(packages: Path, unedited: Code) -> None:
    report = ("flows.works.reporting",)
    with (packages / "care" / "show" / "report.html.j2").open("a") as file:
        file.write("<p>more</p>")
    assert Code(packages).digest(*report) != unedited.digest(*report)


def test_every_evaluation_and_every_work_has_a_digest_of_its_own(unedited: Code) -> None:
    digests = {work: unedited.digest(module) for work, module in WORKS.items()}
    verbs = [line.kind for line in EVALUATIONS]
    digests |= {verb: unedited.digest(WORKS["judge"], f"care.evaluate:{verb}") for verb in verbs}
    assert len({*digests.values()}) == len(digests)


def test_an_edit_of_the_method_redoes_no_evaluation(packages: Path, unedited: Code) -> None:
    # that of attention may look through the T-stream
    verbs = [line.kind for line in EVALUATIONS if line.kind != "attention"]
    roots = [("flows.works.judging", f"care.evaluate:{verb}") for verb in verbs]
    edit(packages / "care" / "positions.py", "dim**-0.5", "dim**-0.25")
    edited = Code(packages)
    for root in roots:
        assert edited.digest(*root) == unedited.digest(*root)
    assert edited.digest(*PRETRAIN) != unedited.digest(*PRETRAIN)


def test_identity_is_known_without_torch() -> None:
    code = "import sys, flows.identity; flows.identity.code_digest('judge', 'knn')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr


def test_an_encoder_is_known_by_its_checkpoint_wherever_the_folder_lies(tmp_path: Path) -> None:
    def identity(place: Path | str) -> str:
        return str(input_identity("encoder", str(place), {}))

    run = tmp_path / "run" / "checkpoints"
    for step in (2, 4):
        (run / f"step-{step:08d}").mkdir(parents=True)
        (run / f"step-{step:08d}" / "manifest.json").write_text(f'{{"step": {step}}}')
    (tmp_path / "few").mkdir()
    shutil.copytree(tmp_path / "run", tmp_path / "few" / "all labels")
    second = hashlib.sha256(b'{"step": 2}').hexdigest()
    fourth = hashlib.sha256(b'{"step": 4}').hexdigest()
    assert identity(run / "step-00000002") == second
    assert identity(tmp_path / "run") == identity(tmp_path / "few") == fourth
    shutil.move(run / "step-00000002", tmp_path / "moved")
    assert identity(tmp_path / "moved") == second
    assert input_identity("init", str(tmp_path / "moved"), {}) == second
    assert input_identity("init", "supervised:resnet50", {}) == "supervised:resnet50"


def test_one_thread_parses_at_a_time(monkeypatch) -> None:
    parse = ast.parse
    parsing, counts = [], []

    def slow_parse(source):
        parsing.append(source)
        counts.append(len(parsing))
        time.sleep(0.001)
        tree = parse(source)
        parsing.pop()
        return tree

    monkeypatch.setattr(ast, "parse", slow_parse)
    with ThreadPoolExecutor(4) as pool:
        digests = {*pool.map(lambda _: Code().digest("shards.storage"), range(4))}
    assert len(digests) == 1
    assert max(counts) == 1


def test_what_another_thread_spoils_is_parsed_again(monkeypatch) -> None:
    digest = Code().digest("shards.errors")
    parse, calls = ast.parse, []

    def spoilt_parse(source):
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch")
        return parse(source)

    monkeypatch.setattr(ast, "parse", spoilt_parse)
    assert Code().digest("shards.errors") == digest
    assert calls[0] == calls[1] == calls[2]
