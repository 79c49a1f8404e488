import json
from pathlib import Path
import pytest
import shards
from shards import boxes, scenes
from shards.scenes_cache import images_of


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache" / "shards"))


def test_any_other_source_is_itself():
    for source in ("photos", "s3://bucket/photos", "scenes", "/data/scenes:2"):
        assert images_of(source, annotated=False, seed=0) == source


def test_scenes_are_rendered_with_classes_or_with_boxes(tmp_path):
    images = images_of("scenes:8+16", annotated=False, seed=3)
    index = shards.build(images, tmp_path / "set")
    assert (len(index.samples), index.classes) == (16, tuple(sorted(scenes.CLASSES)))
    folder = images_of("scenes:8+16", annotated=True, seed=3)
    assert len(boxes.load(folder).pictures) == 16
    info = json.loads((Path(folder) / "annotations.json").read_text())["info"]
    assert (info["start"], info["count"], info["seed"]) == (8, 16, 3)
    assert images == f"{folder}/images"


def test_equal_scenes_are_rendered_once_and_others_beside_them(monkeypatch):
    first = images_of("scenes:0+2", annotated=False, seed=0)
    others = {
        images_of("scenes:0+3", annotated=False, seed=0),
        images_of("scenes:1+2", annotated=False, seed=0),
        images_of("scenes:0+2", annotated=False, seed=1),
    }
    assert len(others | {first}) == 4
    monkeypatch.setattr(scenes, "write", None)
    assert images_of("scenes:0+2", annotated=False, seed=0) == first


def test_an_edit_of_what_renders_makes_new_scenes(monkeypatch, tmp_path):
    first = images_of("scenes:0+2", annotated=False, seed=0)
    edited = tmp_path / "edited.py"
    edited.write_bytes(Path(scenes.__file__).read_bytes() + b"\n# an edit\n")
    monkeypatch.setattr(scenes, "__file__", str(edited))
    assert images_of("scenes:0+2", annotated=False, seed=0) != first
