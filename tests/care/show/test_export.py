import csv
import io
import json
import math
import random
import re
import pytest
from evaluation_rows import evaluation
from care.show import as_csv, as_markdown, compared
from care.show.paper import paper
from care.show.rows import MEASURES


def papers(task):
    return [row["task"] for row in paper()].count(task)


def markdown_tables(text):
    """By a reader of its own: the cells of each table, unescaped and without emphasis."""
    tables_read, inside = [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables_read.append([])
        inside = True
        cells = [cell.strip().replace("**", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        tables_read[-1].append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
    return tables_read


def drawn():
    draw = random.Random(0)
    rows = []
    for task in ("kNN", "linear", "COCO FPN"):
        measures = ["ap", "ap50", "mask_ap"] if task == "COCO FPN" else ["top1", "top5"]
        for encoder in ("runs/a|b", r"c\d*e*", "<i>`f`", "random:resnet50"):
            row = evaluation(task, encoder, trials=5) | {
                name: draw.uniform(0, 100) for name in measures
            }
            rows.append(row | {f"{name}_std": draw.uniform(0, 5) for name in measures})
    return rows


def test_markdown_read_back_has_the_numbers():
    rows = drawn()
    tables_read = markdown_tables(as_markdown(rows))
    assert [table[0][2:] for table in tables_read] == [
        ["top-1 %", "top-5 %"],
        ["AP %", "AP50 %", "mask AP %"],
    ]
    assert [table[1] for table in tables_read] == [
        ["---", "---", "---:", "---:"],
        ["---", "---", "---:", "---:", "---:"],
    ]
    cells = [line for table in tables_read for line in table[2:]]
    assert len(cells) == len(rows) == 12
    for (task, encoder, *values), row in zip(cells, rows, strict=True):
        assert (task, encoder) == (row["task"], row["encoder"])
        names = [name for name in MEASURES if name in row]
        for name, value in zip(names, values, strict=True):
            mean, spread = map(float, value.split(" ± "))
            assert mean == pytest.approx(row[name], abs=0.0501)
            assert spread == pytest.approx(row[f"{name}_std"], abs=0.0501)
    assert "\n- COCO FPN: k 20; mean ± standard deviation of 5 trials\n" in as_markdown(rows)


def test_the_best_of_markdown_is_bold():
    text = as_markdown(drawn())
    bold = re.findall(r"^\| (.*?) \| .* \| \*\*([\d.]+) ±", text, re.MULTILINE)
    best = {
        task: max(row.get("top1", row.get("ap")) for row in drawn() if row["task"] == task)
        for task in ("kNN", "linear", "COCO FPN")
    }
    assert [(task, float(value)) for task, value in bold] == [
        (task, round(value, 1)) for task, value in best.items()
    ]


def test_csv_leaves_the_figures_on_resampled_images_out():
    rows = [evaluation(top1=50.0)]
    assert as_csv([rows[0] | {"resampled": [49.0, 51.0]}]) == as_csv(rows)


def test_csv_read_back_has_every_value():
    rows = compared(
        [*drawn(), evaluation("VOC C4", 'a "b", c\nd', ap=50.0, chosen={"lrs": [0.1]}, ap75=None)]
    )
    text = as_csv(rows)
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(lines) == len(rows) == 13 + papers("linear") + papers("COCO FPN") + papers("VOC C4")
    assert list(lines[0])[:5] == ["source", "task", "encoder", "top1", "top5"]
    for line, row in zip(lines, rows, strict=True):
        assert set(row) <= set(line)
        for name, cell in line.items():
            value = row.get(name)
            if isinstance(value, dict):
                assert json.loads(cell) == value
            elif isinstance(value, int | float):
                assert math.isclose(float(cell), value, rel_tol=0, abs_tol=0), name
            else:
                assert cell == (value or ""), name
        assert bool(line["source"]) == ("reported by" in line["source"]) == (row not in rows[:13])
