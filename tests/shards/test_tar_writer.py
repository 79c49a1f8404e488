"""The tar writer gives the bytes of ``tarfile``, and their digest."""

import hashlib
import io
import tarfile
import pytest
from shards import tar_writer
from shards.tar_writer import TarWriter

NAMES = ["a.jpg", "é/ü.cls", "n" * 100, "n" * 101, "deep/" * 60 + "x.png", "a\udcff.jpg", "ñ" * 50]
SIZES = [0, 1, 511, 512, 513, 20_000]


def by_tarfile(members):
    file = io.BytesIO()
    form = tarfile.GNU_FORMAT
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("piece", [1, 5000, 1 << 20])
def test_its_bytes_are_those_of_tarfile(monkeypatch, piece):
    monkeypatch.setattr(tar_writer, "_PIECE", piece)
    members = [(name, bytes([size % 251]) * size) for name in NAMES for size in SIZES]
    file = io.BytesIO()
    tar = TarWriter(file)
    offsets = [tar.append(name, data) for name, data in members]
    sha256 = tar.finish()
    wanted = by_tarfile(members)
    assert file.getvalue() == wanted
    assert (tar.size, sha256) == (len(wanted), hashlib.sha256(wanted).hexdigest())
    for offset, (_, data) in zip(offsets, members, strict=True):
        assert wanted[offset : offset + len(data)] == data


@pytest.mark.parametrize("count", [0, 1, 18, 19, 20])
def test_it_ends_as_tarfile_does_at_any_length(count):
    members = [("name", bytes(512))] * count
    file = io.BytesIO()
    tar = TarWriter(file)
    for name, data in members:
        tar.append(name, data)
    tar.finish()
    assert file.getvalue() == by_tarfile(members)


def test_a_size_beyond_the_field_is_written_as_tarfile_does():
    info = tarfile.TarInfo("large")
    info.size = 8**11
    assert tar_writer._header("large", 8**11) == info.tobuf(tarfile.GNU_FORMAT)
