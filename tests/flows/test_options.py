import inspect
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal
import pytest
import typer
from typer.testing import CliRunner
from flows.cli.options import add_command
from flows.flatten import flat_parameters, gathered, parse_docstring
from shards.bounds import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
)
from shards.image_size import ImageSize

Kind = Literal["decode", "header"]


def verb(
    first: str,
    second: int = 3,
    *,
    count: PositiveInt = 2,
    natural: NonNegativeInt = 0,
    share: Fraction = 0.5,
    amount: NonNegativeFloat = 0.0,
    positive: PositiveFloat = 1.0,
    most: Annotated[int, Range(1, 100)] = 90,
    size: PositiveInt | None = None,
    free: float | None = None,
    kind: Kind = "decode",
    precision: Kind | None = None,
    fast: bool = False,
    folder: str | Path | None = None,
    place: Path = Path("here"),
    lrs: tuple[float, ...] | None = None,
    epochs: tuple[int, ...] = (30, 50),
    range_of: tuple[float, float] = (0.25, 1e-6),
    hidden: int = 7,
    listed: str | Path | None = None,
    views: ImageSize = 224,
    crops: ImageSize | None = None,
) -> str:
    """Does ``one`` thing, and says so in
    two lines.

    A second paragraph, of which ``Args:`` is no part.

    Args:
        first: no option.
        second: no option either.
        count: at least ``one``.
        natural: at least none: so it is, with
            a second line, and a third
            one.
        share: of all.
        amount: of it.
        positive: above 0.
        most: 1…100.
        size: px.
        free: any number.
        kind: of check.
        precision: or none.
        fast: or slow.
        folder: path or URL.
        place: path.
        lrs: rates.
        epochs: passes.
        range_of: two.
        hidden: is skipped.
        listed: file.
        views: of images.
        crops: of images, perhaps.

    Raises:
        ValueError: never.
    """
    return ""


DEFAULTS = {name: option.default for name, option in flat_parameters(verb).items()}
PLAIN_TERMINAL = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture
def cli():
    """Invokes the command; its result has what ``run`` was called with, or None."""
    app = typer.Typer()
    calls = []

    def run(
        source: Annotated[list[str], typer.Argument()],
        out: Annotated[str, typer.Option(help="Place.")] = "x",
        **settings: Any,
    ) -> None:
        calls.append({"source": source, "out": out, **settings})

    # or a single command would have no name
    app.callback()(lambda: None)
    add_command(app, verb, run, "care verb a", skip=("hidden",), names={"listed": "--list"})

    def invoke(*arguments):
        calls.clear()
        result = CliRunner().invoke(app, ["verb", *arguments], env=PLAIN_TERMINAL)
        called = calls[0] if calls else None
        return SimpleNamespace(code=result.exit_code, output=result.output, called=called)

    return invoke


# forms


def test_a_size_is_a_number_or_height_and_width(cli):
    assert cli("a").called["views"] == 224
    assert cli("a").called["crops"] is None
    called = cli("a", "--views", "96X192", "--crops", "96x96").called
    assert (called["views"], called["crops"]) == ("96x192", 96)
    assert "PIXELS|HxW" in cli("--help").output


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("8", "wanted sides of at least 16 px, got 8"),
        ("96x8", "wanted sides of at least 16 px, got 96x8"),
        ("96:192", "wanted a side in pixels, or height and width such as 96x192, got '96:192'"),
    ],
)
def test_what_is_no_size_is_a_usage_error(cli, typed, said):
    result = cli("a", "--views", typed)
    assert (result.code, result.called) == (2, None)
    assert said in " ".join(result.output.split())
    assert "--views" in result.output


# parse_docstring


def test_a_docstring_is_its_text_and_what_it_says_of_each_argument():
    said, arguments = parse_docstring(verb)
    assert said == (
        "Does one thing, and says so in\ntwo lines."
        "\n\nA second paragraph, of which Args: is no part."
    )
    assert [*arguments] == [*inspect.signature(verb).parameters]
    assert arguments["count"] == "At least one."
    assert arguments["natural"] == "At least none: so it is, with a second line, and a third one."
    assert arguments["listed"] == "File."  # and nothing of what comes after


def test_a_docstring_without_arguments_and_none_at_all():
    def plain():
        """A line.

        Raises:
            ValueError: never.
        """

    assert parse_docstring(plain) == ("A line.\n\nRaises:\n    ValueError: never.", {})
    assert parse_docstring(lambda: None) == ("", {})


# what run is called with


def test_without_options_run_gets_the_defaults_of_the_function(cli):
    want = {name: value for name, value in DEFAULTS.items() if name != "hidden"} | {"place": "here"}
    assert cli("a", "b").called == {"source": ["a", "b"], "out": "x", **want}


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--count", "5"], "count", 5),
        (["--natural", "0"], "natural", 0),
        (["--share", "1"], "share", 1.0),
        (["--amount", "1e3"], "amount", 1000.0),
        (["--positive", "1e-9"], "positive", 1e-9),
        (["--most", "100"], "most", 100),
        (["--size", "1"], "size", 1),
        (["--free", "-2.5"], "free", -2.5),
        (["--kind", "header"], "kind", "header"),
        (["--precision", "decode"], "precision", "decode"),
        (["--fast"], "fast", True),
        (["--no-fast"], "fast", False),
        (
            ["--folder", "s3://bucket/x"],
            "folder",
            "s3://bucket/x",
        ),  # a Path would make it s3:/bucket/x
        (["--place", "s3://bucket/x"], "place", "s3://bucket/x"),
        (["--lrs", "0.1"], "lrs", (0.1,)),
        (["--lrs", "0.1,-2,3e-5"], "lrs", (0.1, -2.0, 3e-5)),
        (["--epochs", "1,2"], "epochs", (1, 2)),
        (["--range-of", "0,0.5"], "range_of", (0.0, 0.5)),
        (["--list", "NAMES.txt"], "listed", "NAMES.txt"),
        (["--out", "y"], "out", "y"),
    ],
)
def test_an_option_has_the_type_of_its_keyword_and_moves_no_other(cli, arguments, name, value):
    before, got = cli("a").called, cli("a", *arguments).called
    assert got[name] == value
    assert type(got[name]) is type(value)
    if isinstance(value, tuple):
        assert [type(one) for one in got[name]] == [type(one) for one in value]
    assert {key: one for key, one in got.items() if key != name} == {
        key: one for key, one in before.items() if key != name
    }


BAD = [
    ("count", "0"),
    ("count", "1.5"),
    ("natural", "-1"),
    ("share", "1.01"),
    ("share", "-0.1"),
    ("amount", "-1e-3"),
    ("positive", "0"),
    ("most", "0"),
    ("most", "101"),
    ("size", "0"),
    ("size", "large"),
    ("free", "much"),
    ("kind", "none"),
    ("precision", "none"),
    ("lrs", "0.1,x"),
    ("lrs", ""),
    ("lrs", "0.1 0.2"),
    ("lrs", "0.1,"),
    ("epochs", "1,2.5"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_named_and_exits_with_2(cli, name, value):
    got = cli("a", f"--{name}", value)
    assert (got.code, got.called) == (2, None)
    assert f"Invalid value for '--{name}'" in got.output
    if name in ("lrs", "epochs"):
        assert f"wanted numbers with commas between them, got {value!r}" in got.output


@pytest.mark.parametrize(
    "arguments", [["--hidden", "3"], ["--listed", "NAMES.txt"], ["--second", "3"], ["--lrs"]]
)
def test_what_is_no_option_and_an_option_without_value_exit_with_2(cli, arguments):
    got = cli("a", *arguments)
    assert (got.code, got.called) == (2, None)
    assert arguments[0] in got.output


def test_without_arguments_the_help_is_shown(cli):
    assert cli().code == 2
    assert "Usage:" in cli().output
    assert cli("--out", "y").code == 2  # the source is missing


# help


def test_the_help_is_the_docstring(cli):
    text = cli("--help").output
    flat = " ".join(text.replace("│", " ").split())
    assert "Does one thing, and says so in two lines." in flat
    assert "A second paragraph, of which Args: is no part." in flat
    assert "Example: care verb a" in flat
    assert "At least none: so it is, with a second line, and a third one." in flat
    assert "no option" not in flat
    assert "Never." not in flat
    for name in DEFAULTS.keys() - {"hidden", "listed"}:
        assert f"--{name.replace('_', '-')} " in flat
        assert parse_docstring(verb)[1][name] in flat
    assert "--list " in flat
    assert "--hidden" not in flat
    for shown in (
        "[default: 30,50]",
        "[default: 0.25,1e-06]",
        "[default: 90]",
        "[default: decode]",
        "NUMBER,…",
        "1<=x<=100",
        "decode|header",
    ):
        assert shown in flat


def test_the_functions_own_keywords_are_the_only_source(cli):
    """A keyword that the docstring says nothing of is an error when the command is made."""

    def silent(*, told: int = 1, untold: int = 2) -> None:
        """Does nothing.

        Args:
            told: a number.
        """

    with pytest.raises(KeyError, match="untold"):
        add_command(typer.Typer(), silent, lambda **_: None, "care silent")
    app = typer.Typer()
    calls = []

    def run(**settings: Any) -> None:
        calls.append(settings)

    add_command(app, silent, run, "care silent", skip=["untold"])
    result = CliRunner().invoke(app, ["--told", "4"])
    assert (result.exit_code, calls) == (0, [{"told": 4}])


@dataclass(frozen=True)
class Recipe:
    """How to cook.

    Attributes:
        lrs: rates.
        epochs: passes.
    """

    lrs: tuple[float, ...] = (0.1, 1)
    epochs: PositiveInt = 3


def test_the_fields_of_a_frozen_value_are_options() -> None:
    five = Recipe(epochs=5)

    def cook(*, recipe: Recipe = five, fast: bool = False) -> None:
        """Cook.

        Args:
            recipe: after which.
            fast: or slow.
        """

    app = typer.Typer()
    calls = []

    def run(**settings: Any) -> None:
        calls.append(settings)

    add_command(app, cook, run, "care cook")
    result = CliRunner().invoke(app, ["--lrs", "2,3"])
    assert (result.exit_code, calls) == (0, [{"lrs": (2.0, 3.0), "epochs": 5, "fast": False}])
    assert gathered(cook, calls[0])["recipe"] == Recipe((2.0, 3.0), 5)
    assert CliRunner().invoke(app, ["--epochs", "0"]).exit_code == 2
    text = CliRunner().invoke(app, ["--help"], env=PLAIN_TERMINAL).output
    for shown in ("--lrs", "Rates.", "[default: 0.1,1]", "--epochs", "[default: 5]"):
        assert shown in text
    assert "--recipe" not in text


def test_a_command_may_have_a_name_and_a_help_of_its_own() -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    add_command(app, verb, lambda **_: None, "care other", name="other", about="Another word.")
    text = CliRunner().invoke(app, ["other", "--help"], env=PLAIN_TERMINAL).output
    assert "Another word." in text
    assert "Does one thing" not in text
