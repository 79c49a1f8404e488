import os
import tarfile
import pytest
import shards
from shards import verify


@pytest.fixture
def built(photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=5)
    return tmp_path / "set"


def flip(file, at):
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def test_an_intact_set_has_no_problems(built):
    assert verify(built) == []


def test_a_set_that_cannot_be_opened_is_one_problem(tmp_path):
    assert len(verify(tmp_path)) == 1
    assert "no index.json" in verify(tmp_path)[0]


def test_any_flipped_byte_is_found(built):
    tar = built / "shard-000000.tar"
    intact = tar.read_bytes()
    for at in range(0, len(intact), 97):
        flip(tar, at)
        assert any(line.startswith("shard-000000.tar: ") for line in verify(built)), at
        tar.write_bytes(intact)
    assert verify(built) == []


def test_a_damaged_sample_is_named(built):
    data = shards.open(built)
    flip(built / "shard-000002.tar", int(data.index.samples[11]["offset"]) + 30)
    assert verify(built) == [
        "shard-000002.tar: sha256 differs from the index",
        f"shard-000002.tar: sample 11 ({data.keys[11]!r}): crc32 differs",
    ]


def test_missing_cut_and_foreign_shards_are_all_listed(built):
    (built / "shard-000001.tar").unlink()
    os.truncate(built / "shard-000003.tar", 700)
    (built / "other.tar").touch()
    lines = verify(built)
    assert lines[0] == "other.tar: not in the index"
    assert "shard-000001.tar: cannot be read: No such file or directory" in lines
    assert any(line.startswith("shard-000003.tar: 700 bytes, wanted") for line in lines)
    assert any("crc32 differs" in line for line in lines if line.startswith("shard-000003"))


def test_another_label_is_found(built):
    data = shards.open(built)
    with tarfile.open(built / "shard-000000.tar") as tar:
        label = next(info for info in tar if info.name == f"{data.keys[0]}.cls")
    flip(built / "shard-000000.tar", label.offset_data)
    assert verify(built) == ["shard-000000.tar: sha256 differs from the index"]
