"""`care doctor`: what is there, what is missing, and what to do."""

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
import pytest
from flows import doctor

ROOT = Path(__file__).parents[2]


def states(group: str, *places: str) -> dict[str, str]:
    checks = [check for check in doctor.examine(*places) if check.group == group]
    return {check.name: check.state for check in checks}


def test_every_extra_of_the_package_has_its_purpose() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert doctor.EXTRAS.keys() == project["optional-dependencies"].keys()
    for extra, lines in project["optional-dependencies"].items():
        names = [re.split(r"[<>=\[]", line)[0] for line in lines]
        assert sorted(doctor._requirements(extra)) == sorted(names), extra


def test_versions_are_those_of_the_metadata() -> None:
    texts = {check.name: check.text for check in doctor.examine() if check.group == "versions"}
    assert texts["torch"] == version("torch")
    assert texts["prefect"] == version("prefect")


def test_a_package_that_is_not_installed_is_a_fault(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "nosuchpackage"))
    assert states("versions") == {"Python": "ok", "torch": "ok", "nosuchpackage": "fault"}


def test_extras_are_there_or_missing_with_the_command(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "s3fs")
    checks = {check.name: check for check in doctor.examine() if check.group == "extras"}
    assert checks["s3"].state == "missing"
    assert "pip install 'care-ssl[s3]'" in checks["s3"].text
    assert checks["timm"].state == "ok"


def test_a_decoder_that_pillow_lacks_is_a_fault(monkeypatch) -> None:
    monkeypatch.setattr(doctor.features, "check", lambda feature: feature != "webp")
    assert states("images")["WebP"] == "fault"
    assert states("images")["JPEG"] == "ok"


def test_a_server_that_does_not_answer_is_a_fault(monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert states("engine") == {"Prefect": "fault"}
    monkeypatch.delenv("PREFECT_API_URL")
    assert states("engine") == {"Prefect": "ok"}


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    misspelt = str(tmp_path / "foldr")
    assert states("places", misspelt)[misspelt] == "fault"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_places_are_tried_and_left_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    good, bad = str(tmp_path), str(tmp_path / "file")
    assert states("places", good, bad, "memory://doctor/x") | {str(Path.cwd()): "ok"} == {
        str(Path.cwd()): "ok",
        good: "ok",
        bad: "fault",
        "memory://doctor/x": "ok",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("place", "code"), [("", 0), ("nowhere", 1)])
def test_it_exits_with_1_where_a_command_would_fail(
    care, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    ended, out, error = care("doctor", *([place] if place else []), "--json")
    assert ended == code, error
    assert {check["group"] for check in json.loads(out)} >= {"versions", "devices", "places"}
    if place:
        assert [check["name"] for check in json.loads(out) if check["state"] == "fault"] == [place]
