"""Results that other programs, versions or people have written: a plain cell or a clear error."""

import json
import math
import pytest
from care import CareError
from care.show import as_csv, as_markdown, compared, gather, report
from care.show.comparison import differences
from care.show.results import tables

ROW = {"task": "kNN", "encoder": "CARE", "top1": 50.0, "trials": 1}
OTHER = ROW | {"encoder": "random initialisation", "top1": 40.0}
NOTHING = [
    {name: None}
    for name in ("trials", "digests", "settings", "chosen", "protocol", "source", "resampled")
]
NO_FIGURES = [
    {"top1": math.nan},
    {"top1": math.inf},
    {"top1": None, "top5": math.nan},
    {"top1_std": math.nan},
    {"resampled": [math.nan, None]},
    {"resampled": [math.nan, None, 3.0], "trials": None},
]


def write(folder, content):
    (folder / "results.json").write_text(json.dumps(content))


@pytest.mark.parametrize("change", NOTHING + NO_FIGURES, ids=str)
def test_what_is_null_or_no_number_is_a_plain_cell(tmp_path, change) -> None:
    write(tmp_path, {"evaluations": [ROW | change, OTHER]})
    rows = gather(tmp_path)
    for text in (as_csv(rows), as_markdown(compared(rows)), report(tmp_path).read_text()):
        assert "CARE" in text
    (table,) = tables([ROW | change, OTHER])
    values = {line.encoder: line.values[0] for line in table.lines}
    assert values["random initialisation"] == "40.0"
    assert values["CARE"] == ("–" if "top1" in change else "50.0")
    assert "nan" not in as_markdown(rows)
    assert "inf" not in as_markdown(rows)


@pytest.mark.parametrize("change", NOTHING, ids=str)
def test_null_is_what_is_missing(change) -> None:
    assert differences([ROW | change, OTHER]) == differences([ROW, OTHER])
    assert tables([ROW | change, OTHER]) == tables([ROW, OTHER])


@pytest.mark.parametrize(
    "content",
    [
        3,
        [],
        {"evaluations": None},
        {"evaluations": [3]},
        {"evaluations": [{"task": "kNN"}]},
        {"evaluations": [ROW | {"top1": "much"}]},
        {"evaluations": [ROW | {"trials": "three"}]},
        {"evaluations": [ROW | {"settings": 3}]},
        {"evaluations": [ROW | {"digests": {"train": 3}}]},
    ],
    ids=str,
)
def test_what_is_no_evaluation_is_a_clear_error(tmp_path, content) -> None:
    write(tmp_path, content)
    for read in (report, gather):
        with pytest.raises(CareError, match=r"results\.json holds no evaluations of a care"):
            read(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_results_without_evaluations_are_a_page_without_tables(tmp_path) -> None:
    write(tmp_path, {"title": "nothing yet"})
    assert "nothing yet" in report(tmp_path).read_text()
