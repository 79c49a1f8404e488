"""Names that stay in their file: the same by number as in memory, also of sets that are mapped."""

import pickle
import shutil
import numpy as np
import pytest
import shards
from shards import ShardError
from shards import index as index_room
from shards import key_lines as key_lines_room
from shards.index import read_index
from shards.key_lines import KeyLines

# of one, two and three bytes a letter; of no letter at all
NAMES = [f"{'aß漢'[number % 3] * (number % 7)}/{number}" for number in range(500)] + ["", "last"]


@pytest.fixture(params=[1, 13, 1 << 16])
def lines(request, monkeypatch):
    """The names, by blocks of which most names are longer, some, or all are in one."""
    monkeypatch.setattr(key_lines_room, "_BLOCK", request.param)
    return KeyLines("".join(f"{name}\n" for name in NAMES).encode())


def test_every_line_is_found_by_its_number(lines):
    assert len(lines) == len(NAMES)
    assert [lines[number] for number in range(len(NAMES))] == NAMES
    assert [lines[np.int64(-number)] for number in (1, 2, 502)] == ["last", "", NAMES[0]]
    assert [*lines] == lines.tolist() == NAMES


@pytest.mark.parametrize("number", [502, -503])
def test_a_line_that_is_not_there_is_refused(lines, number):
    with pytest.raises(IndexError, match=f"wanted name {number} of 502"):
        lines[number]


def test_several_are_an_array_as_of_an_array(lines):
    names = np.array(NAMES, np.dtypes.StringDType())
    rows = np.array([7, 3, 3, 501])
    mask = np.arange(502) % 50 == 3
    for place in (slice(490, None), slice(10, 2, -3), rows, rows.tolist(), mask, np.array([], int)):
        assert lines[place].tolist() == names[place].tolist()
        assert lines[place].dtype == names.dtype
    assert np.array(lines).tolist() == NAMES


def test_no_text_has_no_lines():
    assert len(KeyLines(b"")) == 0
    assert KeyLines(b"").tolist() == []


def test_another_process_gets_a_copy(lines):
    assert pickle.loads(pickle.dumps(lines)).tolist() == NAMES


@pytest.fixture
def image_set(photos, tmp_path):
    shards.build(photos, tmp_path / "images", shard_size=5)
    return tmp_path / "images"


@pytest.fixture
def both(image_set, monkeypatch):
    """A set as it is read, and as if it were a large one."""
    plain = shards.open(image_set)
    monkeypatch.setattr(index_room, "LARGE", 1)
    return plain, shards.open(image_set)


def test_a_large_set_has_the_same_samples(both):
    plain, large = both
    assert isinstance(large.keys, KeyLines)
    assert np.array_equal(large.index.samples, plain.index.samples)
    assert not large.index.samples.flags.owndata
    assert [large[row] for row in range(len(large))] == [plain[row] for row in range(len(plain))]
    assert large.labels.tolist() == plain.labels.tolist()
    copied = pickle.loads(pickle.dumps(large))
    assert copied[3] == plain[3]


def test_so_have_parts_of_it(both):
    renamed = [data.with_classes([*data.classes[:-1], "another"]) for data in both]
    assert renamed[0].labels.tolist() == renamed[1].labels.tolist()
    some = [data.labelled() for data in renamed]
    assert len(some[0]) < len(renamed[0])
    assert some[0].digest == some[1].digest
    assert some[0].keys.tolist() == some[1].keys.tolist()


@pytest.mark.parametrize("name", ["samples.npy", "keys.txt"])
@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_byte_of_a_large_set_that_is_another_is_told(
    image_set, tmp_path, monkeypatch, name, place
):
    monkeypatch.setattr(index_room, "LARGE", 1)
    damaged = shutil.copytree(image_set, tmp_path / "set")
    content = bytearray((damaged / name).read_bytes())
    content[place] ^= 4
    (damaged / name).write_bytes(content)
    with pytest.raises(ShardError, match=f"{name} is not the file that was written"):
        read_index(damaged)


def test_a_large_file_that_is_empty_is_told(image_set, tmp_path, monkeypatch):
    monkeypatch.setattr(index_room, "LARGE", 1)
    damaged = shutil.copytree(image_set, tmp_path / "set")
    (damaged / "keys.txt").write_bytes(b"")
    with pytest.raises(ShardError, match=r"keys\.txt is not the file that was written"):
        read_index(damaged)
