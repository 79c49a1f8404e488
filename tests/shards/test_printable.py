import io
import sys
import pytest
from rich.console import Console
from shards import progress
from shards.printable import printable


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("plain 1.jpg", "plain 1.jpg"),
        ("größe 漢字 é.jpg", "größe 漢字 é.jpg"),
        # macOS puts it before PM in the names of screenshots
        ("10.00\u202fPM.png", "10.00\u202fPM.png"),
        ("a\x1b[31mred.jpg", r"a\x1b[31mred.jpg"),
        ("bell\x07.jpg", r"bell\x07.jpg"),
        ("two\nlines.jpg", r"two\nlines.jpg"),
        (b"caf\xe9.jpg".decode(errors="surrogateescape"), r"caf\xe9.jpg"),
        # turns the direction of writing: gpj.exe is shown as exe.jpg
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("\ud800.jpg", r"\ud800.jpg"),
    ],
)
def test_what_is_not_seen_in_a_name_is_escaped(name: str, wanted: str) -> None:
    assert printable(name) == wanted
    printable(name).encode()


def test_line_ends_of_our_own_stay() -> None:
    assert printable("a: 1\nb\x1b: 2", keep="\n") == "a: 1\nb\\x1b: 2"


def test_a_line_on_stderr_has_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, highlight=False))
    progress.warn("left out: [bold]x[/bold] \x1b[2J.jpg")
    progress.say("[/] is no markup")
    assert stream.getvalue() == "left out: [bold]x[/bold] \\x1b[2J.jpg\n[/] is no markup\n"
    assert sys.stderr is not stream
