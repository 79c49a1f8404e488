import io
import pytest
from rich.console import Console
from shards import progress as module
from shards.progress import ProgressLine, format_progress, parse_progress, progress


@pytest.fixture
def each_line(monkeypatch):
    """Every advance is due a line."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)


@pytest.mark.parametrize(
    "line",
    [
        ProgressLine("building", 20, 100, "5.00 img/s", 16.0),
        ProgressLine("pre-training: CARE, seed 1", 0, 0, "1,234 img/s loss 0.12, lr 0.1", 0.0),
        ProgressLine("x", 1, 2, "", 3.0),
    ],
)
def test_a_line_that_is_written_is_read_back(line):
    assert parse_progress(format_progress(line)) == line


def test_the_format_is_what_users_see():
    line = ProgressLine("building", 20, 100, "5.00 img/s", 15.6)
    assert format_progress(line) == "building: 20/100, 5.00 img/s, ETA 16 s"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "building",
        "building: 20/100",
        "x: 1/2, 3 img/s, ETA 4 s\n",
        "x: 1/2, 3 img/s, ETA four s",
    ],
)
def test_other_text_is_no_line(text):
    assert parse_progress(text) is None


def test_without_a_terminal_plain_lines_tell_how_far_it_is(each_line, capsys):
    with progress("building", 10, start=4) as advance:
        advance(2, "")
        advance(4, "loss 0.5")
    lines = [parse_progress(text) for text in capsys.readouterr().err.splitlines()]
    assert [(line.title, line.completed, line.total) for line in lines] == [
        ("building", 6, 10),
        ("building", 10, 10),
    ]
    assert lines[1].status.endswith(" img/s loss 0.5")
    assert lines[1].seconds_left == 0


def test_lines_are_seldom_but_the_last_one_comes(monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 3600.0)
    with progress("building", 3) as advance:
        for _ in range(3):
            advance(1, "")
    assert [parse_progress(text).completed for text in capsys.readouterr().err.splitlines()] == [3]


def test_on_a_narrow_terminal_the_bar_has_its_line_and_the_losses_theirs(monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "console", terminal)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_STATES", 0)
    losses = "C-stream 4.060 T-stream 3.987 attention 0.01587 spread 0.80 data_wait 12 %"
    with progress("pre-training", 64) as advance:
        advance(32, losses)
        advance(32, losses)
    bar, *below = shown.getvalue().rpartition("pre-training")[2].splitlines()[:3]
    assert "64/64" in bar
    assert losses in " ".join(" ".join(below).split())
