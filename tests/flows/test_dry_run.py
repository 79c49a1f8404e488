"""`care shards build --dry-run` and `--preview`, as they are typed."""

import json
from pathlib import Path
import pytest
from PIL import Image


def test_a_dry_run_shows_what_would_be_built_and_writes_nothing(care, photos, tmp_path) -> None:
    (photos / "a" / "broken.png").write_text("no image")
    (photos / "notes.txt").write_text("notes")
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = care("shards", "build", photos, tmp_path / "set", "--dry-run")
    assert code == 0
    for text in ("folders as classes", "a: 13", "b: 12", "other file", "a/broken.png", "40 × 40"):
        assert text in out
    assert "nothing was built" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_as_json_it_lists_everything(care, photos) -> None:
    (photos / "a" / "broken.png").write_text("no image")
    (photos / "notes.txt").write_text("notes")
    code, out, _ = care("shards", "build", photos, "--dry-run", "--json")
    assert code == 0
    content = json.loads(out)
    assert content["classes"] == {"a": 13, "b": 12}
    assert content["rejects"] == {"other file": ["notes.txt"]}
    assert content["rejected of these"] == {"not an image": ["a/broken.png"]}
    assert (content["images"], content["without class"], content["looked at"]) == (25, 0, 25)
    assert len(content["examples"]) == 24
    assert content["examples"][0]["size"] == [40, 40]


def test_a_build_that_would_be_refused_is_told(care, photos) -> None:
    table = photos / "labels.csv"
    table.write_text("id,label\n0,x\n99,y\n")
    command = ("shards", "build", table, "--dry-run")
    code, out, _ = care(*command)
    assert code == 0
    assert "1 (50.00%, 1.00% may be)" in out
    assert "would be refused" in out
    _, out, _ = care(*command, "--max-rejects", 0.5)
    assert "would be refused" not in out


def test_each_set_of_several_is_shown_and_drawn(care, photos, tmp_path) -> None:
    sheet = tmp_path / "sheet.png"
    options = ("--val-share", 0.25, "--dry-run", "--json", "--preview", sheet)
    code, out, error = care("shards", "build", photos, *options)
    assert code == 0
    content = json.loads(out)
    assert {name: part["classes"] for name, part in content.items()} == {
        "train": {"a": 9, "b": 9},
        "val": {"a": 3, "b": 3},
    }
    for part in content:
        file = tmp_path / f"sheet-{part}.png"
        assert str(file) in error
        with Image.open(file) as image:
            image.verify()


def test_a_preview_is_drawn_before_a_build(care, photos, tmp_path) -> None:
    code, _, _ = care("shards", "build", photos, tmp_path / "set", "--preview", tmp_path / "s.png")
    assert code == 0
    assert (tmp_path / "s.png").is_file()
    assert (tmp_path / "set" / "index.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preview", "sheet.pdf", "--dry-run"], 2, "sheet.png for --preview, got sheet.pdf"),
        (["--preview", "photos/a/sheet.png", "--dry-run"], 2, "would lie in the source"),
        ([], 2, "wanted DEST"),
        (["--dry-run", "--columns", "a"], 1, "leave --columns out"),
    ],
)
def test_what_cannot_be_is_told(
    care, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments, code, message
) -> None:
    monkeypatch.chdir(photos.parent)
    got, _, error = care("shards", "build", photos, *arguments)
    assert (got, message in error) == (code, True), error
