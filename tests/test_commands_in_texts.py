"""Commands in helps, pages and messages are such as `care` takes: parsed, not run."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
import pytest
from typed_commands import UsageError, every_command, lines_of, mentions, options_of, parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_is_taken_as_it_is_written(name: str) -> None:
    command = COMMANDS[name]
    text = f"{command.help or ''}\n\n{command.epilog or ''}\n\n"
    examples = re.findall(r"Example: (.*?)\n\n", text, re.DOTALL)
    assert examples
    for line in examples:
        first, *others = re.split(r", (?:or|then)\b|; ", " ".join(line.split()))
        for example in [first, *(other for other in others if other.startswith("care "))]:
            parse(example)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_taken_as_they_are_written(page: Path) -> None:
    for line in lines_of(page.read_text()):
        try:
            parse(line)
        except UsageError as error:
            pytest.fail(f"{line}: {error}")


def texts_of(file: Path) -> Iterator[str]:
    """The texts in a file: of Python its literals, in which values are an X."""
    text = file.read_text()
    if file.suffix != ".py":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            constants = [getattr(part, "value", "X") for part in node.values]
            yield "".join(part if isinstance(part, str) else "X" for part in constants)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("place", ["docs", "care", "flows", "shards", "examples"])
def test_options_that_sentences_name_with_a_command_are_its(place: str) -> None:
    files = sorted(
        file for ending in ("md", "py", "sh") for file in (ROOT / place).rglob(f"*.{ending}")
    )
    for file in files:
        for text in texts_of(file):
            for words, command, options in mentions(text):
                assert {*options} <= options_of(command), f"{file}: {words}"


def test_a_wrong_option_and_a_wrong_value_are_seen() -> None:
    parse("care pretrain set run --lr 0.1")
    for line in ("care pretrain set run --rate 1", "care pretrain set run --lr much", "care maps"):
        with pytest.raises(UsageError):
            parse(line)
    ((_, command, options),) = mentions("again by care pretrain SET RUN --rate 0.1, or others")
    assert not {*options} <= options_of(command)
