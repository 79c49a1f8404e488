import os
import pytest
from made_images import populate
from shards import Reject, ShardError, storage
from shards.rejects import RejectError
from shards.sources import find
from shards.sources.candidates import Candidate, read_image


def listing(source):
    return [(sample.name, sample.label) for sample in source.samples]


def test_class_folders(tmp_path):
    populate(tmp_path, ["dog/b.jpg", "dog/a.JPG", "cat/deep/er/c.png", "cat/.hidden.jpeg"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no class")
    source = find(tmp_path)
    assert source.classes == ["cat", "dog"]
    assert listing(source) == [
        ("cat/.hidden.jpeg", 0),
        ("cat/deep/er/c.png", 0),
        ("dog/a.JPG", 1),
        ("dog/b.jpg", 1),
    ]
    assert source.rejects == [(Reject.OTHER_FILE, "notes/readme.txt")]
    assert source.samples[0].path == str(tmp_path / "cat/.hidden.jpeg")
    assert source.samples[0].size == (tmp_path / "cat/.hidden.jpeg").stat().st_size


def test_images_beside_class_folders_have_no_class(tmp_path):
    source = find(populate(tmp_path, ["cat/a.jpg", "dog/a.jpg", "stray.jpg"]))
    assert listing(source) == [("cat/a.jpg", 0), ("dog/a.jpg", 1), ("stray.jpg", -1)]
    assert source.rejects == []
    assert ["1 of 3 images has no class" in note for note in source.notes] == [True]


def test_a_flat_folder_has_no_labels(tmp_path):
    populate(tmp_path, ["b.jpg", "a.png"])
    (tmp_path / "empty").mkdir()
    source = find(tmp_path)
    assert (source.classes, source.rejects, [*source.notes]) == ([], [], [])
    assert listing(find(tmp_path)) == [("a.png", -1), ("b.jpg", -1)]


def test_the_order_is_not_the_file_systems(tmp_path, monkeypatch):
    populate(tmp_path / "a", [f"{n}.jpg" for n in range(5)])
    populate(tmp_path / "b", [f"{n}.jpg" for n in range(5)])
    source = find(tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = list(entries)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __next__(self):
            if not self.entries:
                raise StopIteration
            return self.entries.pop()

    monkeypatch.setattr(os, "scandir", Reversed)
    assert find(tmp_path) == source


def test_links_are_followed_and_loops_are_not(tmp_path):
    populate(tmp_path / "away", ["a.jpg"])
    src = populate(tmp_path / "src", ["dog/b.jpg"])
    (src / "cat").symlink_to(tmp_path / "away")
    (src / "dog" / "up").symlink_to(src)
    (src / "self").symlink_to(src)
    (src / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (src / "above").symlink_to(tmp_path)
    source = find(src)
    assert listing(source) == [("cat/a.jpg", 0), ("dog/b.jpg", 1), ("dog/gone.jpg", 1)]
    assert source.samples[2].size == -1


def test_bad_sources_are_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for name, got in (
        ("missing", "nothing of that name"),
        ("file", "a file"),
        ("empty", "an empty one"),
        ("texts", "got no file that ends as images do .*: 1 .txt"),
    ):
        with pytest.raises(ShardError, match=got) as error:
            find(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_not_skipped(tmp_path):
    populate(tmp_path, ["cat/a.jpg"])
    (tmp_path / "dog").mkdir(mode=0)
    with pytest.raises(ShardError, match=r"cannot list .*dog"):
        find(tmp_path)


def test_keys_are_unique_and_free_of_what_readers_trip_over(tmp_path):
    names = [
        "a.b/c.d.jpg",
        "a/x.jpg",
        "a/x.png",
        "a/x.png.jpg",
        "a/50%.jpg",
        "a/é.jpg",
        "__meta__/y.jpg",
        "a/line\nbreak.jpg",
    ]
    keys = {sample.name: sample.key for sample in find(populate(tmp_path, names)).samples}
    assert keys == {
        "a.b/c.d.jpg": "a%2Eb/c%2Ed",
        "a/x.jpg": "a/x",
        "a/x.png": "a/x%2Epng",
        "a/x.png.jpg": "a/x%2Epng%2Ejpg",
        "a/50%.jpg": "a/50%25",
        "a/é.jpg": "a/é",
        "__meta__/y.jpg": "%5F_meta__/y",
        "a/line\nbreak.jpg": "a/line%0Abreak",
    }


def test_names_that_are_not_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert find(tmp_path).samples[0].key == "%FF"


def test_reading_never_blocks_and_names_its_refusals(tmp_path):
    def refusal(name):
        size = storage.listing(tmp_path).get(name, 9)
        with pytest.raises(RejectError) as error:
            read_image(Candidate(str(tmp_path / name), name, size=size))
        return error.value.reason

    os.mkfifo(tmp_path / "pipe.jpg")
    assert refusal("pipe.jpg") == Reject.UNREADABLE
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert refusal("huge.jpg") == Reject.TOO_LARGE


def test_shares_split_every_file_once_and_keep_the_classes(tmp_path):
    src = tmp_path / "src"
    for name in ("ant", "bee"):
        populate(src / name, [f"{n}.png" for n in range(60)])
    (src / "notes.txt").write_text("notes")
    parts = [find(src, share=share) for share in ((0, 0.5), (0.5, 0.8), (0.8, 1))]
    names = []
    for part in parts:
        names += [image.name for image in part.samples]
    assert sorted(names) == [image.name for image in find(src).samples]
    assert sum(len(part.rejects) for part in parts) == 1
    assert all(part.classes == ["ant", "bee"] for part in parts)
    assert 40 < len(parts[0].samples) < 80
    assert {image.label for image in parts[1].samples} == {0, 1}


def test_a_share_without_an_image_is_an_error(tmp_path):
    with pytest.raises(ShardError, match=r"wanted images at .*, got none in the share 0–0\.001"):
        find(populate(tmp_path / "src", ["a/1.png"]), share=(0, 0.001))
