"""`care export` and `care neighbours`, as they are typed."""

import json
from pathlib import Path
import pytest
from PIL import Image

RANDOM = "random:resnet18-small-half"


@pytest.fixture
def shard_set(care, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = care("shards", "build", photos, "set")
    assert code == 0, error


def test_an_encoder_is_exported_once(care, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, error = care("export", RANDOM, out, "--to", "safetensors", "--license", "mit")
    assert code == 0, error
    assert "README.md, encoder.safetensors, export.json, preprocessing.json" in text
    assert "all weights read by care-ssl" in text
    assert (out / "README.md").read_text().startswith("---\nlicense: mit\n")
    code, _, error = care("export", RANDOM, out, "--to", "safetensors")
    assert code == 1
    assert "is there already" in error
    code, text, _ = care("export", RANDOM, tmp_path / "two", "--to", "safetensors", "--json")
    assert json.loads(text)["verified"]["difference"] == 0


def test_neighbours_are_drawn_of_sets_features_and_files(care, shard_set, photos: Path) -> None:
    code, out, error = care("neighbours", RANDOM, "set", "--size", 32, "--k", 3, "--json")
    assert code == 0, error
    facts = json.loads(out)
    assert Image.open(facts["file"]).format == "PNG"
    assert len(facts["queries"]) == 6
    assert all(len(query["neighbours"]) == 3 for query in facts["queries"])
    assert all(query["image"] not in query["neighbours"] for query in facts["queries"])
    assert care("features", RANDOM, "set", "set.npy", "--size", 32)[0] == 0
    code, out, _ = care("neighbours", "set.npy", "set", "--k", 3, "--json")
    assert json.loads(out)["queries"] == facts["queries"]
    # an image file is nearest to itself in the set
    file = sorted(photos.rglob("*.*"))[0]
    code, out, _ = care("neighbours", RANDOM, "set", file, "--size", 32, "--json")
    (query,) = json.loads(out)["queries"]
    assert query["cosines"][0] == pytest.approx(1, abs=1e-4)
    assert Path(query["neighbours"][0]).name == file.stem


def test_neighbours_of_a_folder_need_no_set(care, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "near.png"
    code, text, error = care("neighbours", RANDOM, photos, "--size", 32, "--out", out)
    assert code == 0, error
    assert text.strip() == str(out)
    assert out.is_file()


def test_neighbours_are_refused_in_a_line(care, shard_set, photos: Path) -> None:
    assert care("features", RANDOM, "set", "set.npy", "--size", 32)[0] == 0
    file = sorted(photos.rglob("*.*"))[0]
    for arguments, message in [
        (("set.npy", "set", file), "wanted an encoder for images that are not in the set"),
        (("set.npy", "set", "nobody"), "nobody is neither an image file nor a name in "),
        (("nosuch.npy", "set"), "nosuch.csv does not exist; wanted a file of `care features`"),
    ]:
        code, _, error = care("neighbours", *arguments)
        assert code == 1
        assert message in error
        assert "Traceback" not in error
    assert not Path("neighbours.png").exists()
