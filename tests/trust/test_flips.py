"""A few of the bits that `nox -s trust` flips: none is undetected, and an unsealed one would be."""

import json
import pytest
from flips import campaign, targets
from care.evaluate import features
from care.train import checkpoint
from flows import records
from shards import storage
from shards.seals import is_as_sealed, sealed


def test_no_flipped_bit_is_undetected(tmp_path) -> None:
    figures = campaign(300, 1, tmp_path)
    counts = figures["kinds"]
    assert sum(sum(row.values()) for row in counts.values()) == 300
    assert not sum(row["undetected"] for row in counts.values())
    assert counts["tars, audited"] == {"detected": 50, "harmless": 0, "undetected": 0}


def test_the_campaign_would_count_what_no_seal_protects(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "is_as_sealed", lambda _: True)
    monkeypatch.setattr(records, "is_as_sealed", lambda _: True)
    counts = campaign(300, 1, tmp_path)["kinds"]
    assert counts["checkpoints"]["undetected"]
    assert counts["records"]["undetected"]


@pytest.mark.parametrize("kind", ["checkpoints", "records"])
def test_a_document_without_a_seal_is_of_an_older_version_and_read(tmp_path, kind) -> None:
    target = targets(tmp_path)[kind]
    written = target.read()
    (file,) = [file for file in target.files if "own" in json.loads(_text(file))]
    document = storage.read_json(file)
    del document["own"]
    storage.write_json(file, document)
    assert target.read() == written


def _text(file) -> str:
    return file.read_text() if file.suffix == ".json" else "{}"


def test_features_without_a_digest_are_computed_again(tmp_path) -> None:
    whole = targets(tmp_path)["features"]
    (file,) = whole.files
    assert whole.read()
    x = features.load(file.read_bytes())["x"]
    storage.write_bytes(file, features.save({"x": x}))
    assert whole.read() is None


def test_a_seal_is_of_what_is_read_again(tmp_path) -> None:
    storage.write_json(
        tmp_path / "a.json", sealed({"classes": {10: "a", 9: "b"}, "pair": (1, 0.1)})
    )
    document = storage.read_json(tmp_path / "a.json")
    assert is_as_sealed(document)
    assert not is_as_sealed(document | {"pair": [1, 0.2]})
