"""What an input is: its bytes, not its name and size; and files that stay are read once."""

import io
import os
import time
import zlib
import fsspec
import pytest
from made_images import image_bytes, populate
from PIL import Image
import shards
from shards import ShardError, contents, storage, writers
from shards.contents import UNKNOWN, contents_of, identity_of
from shards.plan import make_plan
from shards.sources.candidates import Candidate
from shards.versions import versions_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "cache" / "shards"))


@pytest.fixture
def settled(monkeypatch):
    """Files count as old as soon as they are written."""
    monkeypatch.setattr(contents, "_SECONDS_TO_SETTLE", -1000.0)


@pytest.fixture
def reads(monkeypatch):
    """The paths that are read to know their contents."""
    paths = []
    read_image = contents.read_image

    def recording(image):
        paths.append(image.path)
        return read_image(image)

    monkeypatch.setattr(contents, "read_image", recording)
    return paths


@pytest.fixture
def bitmaps(tmp_path):
    """Files that all have the same size, whatever is on them."""
    folder = tmp_path / "bitmaps"
    for number in range(6):
        file = folder / "ab"[number % 2] / f"{number}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_bytes(seed=number, file_format="BMP"))
    return folder


def candidates(folder):
    return make_plan(folder).source.samples


def replace_by_another(file):
    """Other bytes, the same length; the modification time says nothing, as of ``exiftool -P``."""
    status = file.stat()
    file.write_bytes(image_bytes(seed=99, file_format="BMP"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size


# contents


def test_a_content_is_the_checksum_that_the_index_has(bitmaps, tmp_path):
    images = candidates(bitmaps)
    crc32s = [zlib.crc32((bitmaps / image.name).read_bytes()) for image in images]
    assert contents_of(images) == crc32s
    index = shards.build(bitmaps, tmp_path / "set")
    assert sorted(index.samples["crc32"].tolist()) == sorted(crc32s)


def test_files_that_stay_are_read_once(bitmaps, settled, reads):
    images = candidates(bitmaps)
    first = contents_of(images)
    assert len(reads) == 6
    assert contents_of(images) == first
    assert len(reads) == 6
    replace_by_another(bitmaps / "a/2.bmp")
    second = contents_of(candidates(bitmaps))
    assert reads[6:] == [str(bitmaps / "a/2.bmp")]
    assert sum(old != new for old, new in zip(first, second, strict=True)) == 1


def test_a_file_that_was_just_written_is_read_again(bitmaps, reads):
    for _ in range(2):
        contents_of(candidates(bitmaps))
    assert len(reads) == 12


def test_members_of_tars_have_contents_of_their_own(bitmaps, tmp_path, settled, reads):
    shards.build(bitmaps, tmp_path / "set")
    members = candidates(tmp_path / "set")
    crc32s = contents_of(members)
    assert sorted(crc32s) == sorted(contents_of(candidates(bitmaps)))
    count = len(reads)
    assert contents_of(members) == crc32s
    assert len(reads) == count


def test_a_cache_that_cannot_be_used_costs_time_only(bitmaps, tmp_path, settled, reads):
    (tmp_path / "cache").write_text("in the way")
    for _ in range(2):
        assert UNKNOWN not in contents_of(candidates(bitmaps))
    assert len(reads) == 12
    (tmp_path / "cache").unlink()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/contents.sqlite").write_bytes(b"no database" * 99)
    assert UNKNOWN not in contents_of(candidates(bitmaps))


def test_links_and_what_is_no_file_have_none(tmp_path):
    images = [Candidate("http://127.0.0.1:9/a.jpg", "a"), Candidate(str(tmp_path / "b"), "b")]
    assert contents_of(images) == [UNKNOWN, UNKNOWN]


# versions


def test_a_local_version_is_another_one_after_every_change(bitmaps):
    file = bitmaps / "a/2.bmp"
    seen = set()
    for change in (
        lambda: None,
        lambda: replace_by_another(file),
        lambda: os.utime(file, (1, 1)),
        lambda: (bitmaps / "a/4.bmp").replace(file),
    ):
        change()
        seen.add(versions_of([str(file)])[str(file)].text)
        time.sleep(0.02)  # the clock of a file system ticks
    assert len(seen) == 4
    assert versions_of([str(bitmaps / "none")]) == {}


def test_an_object_s_version_is_what_its_store_says(tmp_path):
    store = fsspec.filesystem("memory")
    for name in ("a/1.bmp", "a/b/2.bmp", "c/3.bmp"):
        store.pipe_file(f"/versions/{name}", b"x")
    urls = [f"memory://versions/{name}" for name in ("a/1.bmp", "a/b/2.bmp", "c/3.bmp", "c/no")]
    before = versions_of(urls)
    assert [*before] == urls[:3]
    time.sleep(0.01)
    store.pipe_file("/versions/a/b/2.bmp", b"y")
    after = versions_of(urls)
    assert {url for url in before if before[url] != after[url]} == {urls[1]}
    store.rm("/versions", recursive=True)


def test_objects_are_told_by_their_tags_and_not_read(bitmaps, reads):
    store = fsspec.filesystem("memory")
    store.put(str(bitmaps), "/tagged", recursive=True)
    images = candidates("memory://tagged")
    first = identity_of(images)
    assert reads == []
    store.pipe_file("/tagged/a/2.bmp", image_bytes(seed=99, file_format="BMP"))
    second = identity_of(images)
    assert [old == new for old, new in zip(first, second, strict=True)].count(False) == 1
    assert reads == []
    store.rm("/tagged", recursive=True)


# builds


@pytest.mark.parametrize("options", [{}, {"max_side": 8}], ids=["as they are", "made smaller"])
def test_images_replaced_by_others_of_their_size_are_another_set(bitmaps, tmp_path, options):
    index = shards.build(bitmaps, tmp_path / "set", **options)
    assert shards.build(bitmaps, tmp_path / "set", **options).digest == index.digest
    replace_by_another(bitmaps / "a/2.bmp")
    with pytest.raises(ShardError, match="images of its source have changed since") as error:
        shards.build(bitmaps, tmp_path / "set", **options)
    assert ("such as a/2.bmp" in str(error.value)) == (not options)
    assert "remove it or choose another DEST" in str(error.value)


def test_images_that_were_exchanged_are_another_set(bitmaps, tmp_path):
    shards.build(bitmaps, tmp_path / "set")
    one, other = bitmaps / "a/2.bmp", bitmaps / "b/1.bmp"
    bytes_of_one = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(bytes_of_one)
    with pytest.raises(ShardError, match=r"such as a/2\.bmp, b/1\.bmp"):
        shards.build(bitmaps, tmp_path / "set")


def test_a_photograph_that_was_turned_is_another_one(tmp_path):
    folder = tmp_path / "photos"
    populate(folder, ["a/1.jpg"])

    def save(orientation):
        exif = Image.Exif()
        exif[0x112] = orientation
        file = io.BytesIO()
        Image.new("RGB", (64, 40), "red").save(file, "JPEG", exif=exif)
        (folder / "a/1.jpg").write_bytes(file.getvalue())
        return len(file.getvalue())

    assert save(1) == (folder / "a/1.jpg").stat().st_size
    shards.build(folder, tmp_path / "set")
    save(6)
    with pytest.raises(ShardError, match=r"such as a/1\.jpg"):
        shards.build(folder, tmp_path / "set")


def test_files_that_were_only_touched_or_restored_are_the_same_set(bitmaps, tmp_path):
    digest = shards.build(bitmaps, tmp_path / "set").digest
    file = bitmaps / "a/2.bmp"
    original = file.read_bytes()
    replace_by_another(file)
    file.write_bytes(original)
    os.utime(file)
    assert shards.build(bitmaps, tmp_path / "set").digest == digest


def test_an_interrupted_build_writes_the_shards_of_changed_images_again(
    bitmaps, tmp_path, monkeypatch
):
    build_module = __import__("importlib").import_module("shards.build")
    commit = build_module.commit
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "commit", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shards.build(bitmaps, tmp_path / "set", shard_size=2)
    replace_by_another(bitmaps / "a/2.bmp")
    written = []
    write_shard = writers.write_shard

    def recording(plan, dest, number, tick):
        written.append(number)
        write_shard(plan, dest, number, tick)

    monkeypatch.setattr(writers, "write_shard", recording)
    assert build_module.commit is commit
    index = shards.build(bitmaps, tmp_path / "set", shard_size=2)
    assert len(written) == 1
    assert index.digest == shards.build(bitmaps, tmp_path / "new", shard_size=2).digest


def test_a_build_that_goes_on_reads_no_image_of_a_finished_shard_again(
    bitmaps, tmp_path, settled, reads, monkeypatch
):
    write_shard = writers.write_shard

    def stopping(plan, dest, number, tick):
        if number == 2:
            raise ShardError("stopped")
        write_shard(plan, dest, number, tick)

    with monkeypatch.context() as patch:
        patch.setattr(writers, "write_shard", stopping)
        with pytest.raises(ShardError, match="stopped"):
            shards.build(bitmaps, tmp_path / "set", shard_size=2, workers=1)
    shards.build(bitmaps, tmp_path / "set", shard_size=2)
    assert reads == []


def test_a_finished_set_of_files_that_stay_is_only_looked_up(bitmaps, tmp_path, settled, reads):
    shards.build(bitmaps, tmp_path / "set")
    shards.build(bitmaps, tmp_path / "set")
    assert reads == []


def test_a_corrupt_image_that_was_repaired_is_another_one(bitmaps, tmp_path):
    good = (bitmaps / "a/2.bmp").read_bytes()
    (bitmaps / "a/2.bmp").write_bytes(b"BM" + bytes(len(good) - 2))
    shards.build(bitmaps, tmp_path / "set", max_rejects=0.5)
    (bitmaps / "a/2.bmp").write_bytes(good)
    with pytest.raises(ShardError, match="have changed since"):
        shards.build(bitmaps, tmp_path / "set", max_rejects=0.5)


def test_made_smaller_by_an_earlier_version_a_set_says_nothing_of_contents(bitmaps, tmp_path):
    shards.build(bitmaps, tmp_path / "set", max_side=8)
    file = tmp_path / "set/index.json"
    document = storage.read_json(file)
    del document["contents"], document["own"]
    storage.write_json(file, document | {"own": storage.digest(document)})
    replace_by_another(bitmaps / "a/2.bmp")
    assert len(shards.build(bitmaps, tmp_path / "set", max_side=8).samples) == 6
