"""Any iterable of (key, image, label) is a source."""

import io
import numpy as np
import pytest
from made_images import encoded
from PIL import Image
import shards
from shards import ShardError, spool
from shards.memory_images import file_bytes, memory_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)


def as_bytes(number):
    return encoded(Image.fromarray(PIXELS[number]))


FORMS = {
    "bytes": as_bytes,
    "Pillow": lambda number: Image.fromarray(PIXELS[number]),
    "array": lambda number: PIXELS[number],
}


def yielded(form="array", count=12):
    """Samples of two classes, sorted by class as data sets are."""
    for number in range(count):
        yield f"{number // 6}/{number}", FORMS[form](number), "ab"[number // 6]


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_yielded_is_in_the_set_pixel_by_pixel(tmp_path, form):
    index = shards.build(yielded(form), tmp_path / "set", shard_size=5)
    assert (index.classes, index.seen, index.rejects) == (("a", "b"), 12, {})
    data = shards.open(tmp_path / "set")
    for sample in data:
        number = int(sample.key.partition("/")[2])
        assert np.array_equal(shards.decode(sample.data), PIXELS[number])
        assert sample.label == number // 6
    assert sorted(data.keys) == sorted(key for key, _, _ in yielded())
    assert list(data.keys) != sorted(data.keys)  # in the order of the seed


def test_the_shards_are_those_of_a_folder_with_the_same_files(tmp_path, photos):
    wanted = shards.build(photos, tmp_path / "folder", shard_size=5)
    files = sorted(photos.rglob("*.jpg"))
    names = [file.relative_to(photos).as_posix() for file in files]
    classes = [file.parent.name for file in files]
    paths = shards.build(zip(names, files, classes, strict=True), tmp_path / "paths", shard_size=5)
    data = [file.read_bytes() for file in files]
    read = shards.build(zip(names, data, classes, strict=True), tmp_path / "bytes", shard_size=5)
    assert paths.shards == read.shards == wanted.shards
    assert list(paths.keys) == list(read.keys) == list(wanted.keys)


def test_webdataset_reads_a_set_whatever_the_keys(tmp_path):
    import webdataset

    keys = ["img_0.5", "a.b/c", "photo.PNG", "photo.jpg", "7", "é", "x" * 200]
    samples = [(key, PIXELS[number], number) for number, key in enumerate(keys)]
    shards.build(samples, tmp_path / "set")
    tar = str(tmp_path / "set" / "shard-000000.tar")
    read = {int(sample["cls"]): sample for sample in webdataset.WebDataset(tar, shardshuffle=False)}
    assert sorted(read) == list(range(len(keys)))
    for number, sample in read.items():
        (image,) = (data for field, data in sample.items() if field in ("png", "jpg", "PNG"))
        assert np.array_equal(shards.decode(image), PIXELS[number])


# a build that is stopped


class StopError(Exception):
    pass


def stopped(after):
    for number, sample in enumerate(yielded()):
        if number == after:
            raise StopError
        yield sample


def test_a_stopped_build_goes_on_and_writes_no_image_again(tmp_path, monkeypatch):
    shards.build(yielded(), tmp_path / "wanted", shard_size=5)
    with pytest.raises(StopError):
        shards.build(stopped(after=7), tmp_path / "set", shard_size=5)
    encodings = []

    def counted(image):
        encodings.append(image)
        return file_bytes(image)

    monkeypatch.setattr(spool, "file_bytes", counted)
    shards.build(yielded(), tmp_path / "set", shard_size=5)
    assert len(encodings) == 12 - 7
    assert content(tmp_path / "set") == content(tmp_path / "wanted")


def test_a_build_goes_on_that_was_stopped_while_shards_were_written(tmp_path, monkeypatch):
    shards.build(yielded(), tmp_path / "wanted", shard_size=5)
    write_shards = shards.build.__globals__["write_shards"]

    def first_only(plan, dest, numbers, workers):
        write_shards(plan, dest, numbers[:1], workers)
        raise StopError

    with monkeypatch.context() as patch:
        patch.setitem(shards.build.__globals__, "write_shards", first_only)
        with pytest.raises(StopError):
            shards.build(yielded(), tmp_path / "set", shard_size=5, workers=1)
    first = (tmp_path / "set" / "shard-000000.tar").stat()
    shards.build(yielded(), tmp_path / "set", shard_size=5)
    assert (tmp_path / "set" / "shard-000000.tar").stat().st_ino == first.st_ino
    assert content(tmp_path / "set") == content(tmp_path / "wanted")


def test_many_parts_of_the_spool_are_read_and_removed(tmp_path, monkeypatch):
    shards.build(yielded(), tmp_path / "wanted")
    monkeypatch.setattr(spool, "PART_BYTES", 600)
    with pytest.raises(StopError):
        shards.build(stopped(after=9), tmp_path / "set")
    assert len([*(tmp_path / "set").glob(".samples-*.bin")]) > 2
    shards.build(yielded(), tmp_path / "set")
    assert content(tmp_path / "set") == content(tmp_path / "wanted")


def test_what_a_kill_leaves_of_the_spool_is_in_nobodys_way(tmp_path):
    shards.build(yielded(), tmp_path / "wanted")
    with pytest.raises(StopError):
        shards.build(stopped(after=9), tmp_path / "set")
    for name in (".part-.samples-000001.bin", ".part-.samples-000001.json", ".samples-000001.bin"):
        (tmp_path / "set" / name).write_text("half")
    shards.build(yielded(), tmp_path / "set")
    assert content(tmp_path / "set") == content(tmp_path / "wanted")


def test_a_finished_set_is_compared_and_not_written(tmp_path):
    wanted = shards.build(yielded(), tmp_path / "set")
    before = content(tmp_path / "set")
    assert shards.build(yielded(), tmp_path / "set").digest == wanted.digest
    others = ((key, 255 - image, label) for key, image, label in yielded())
    fewer = yielded(count=11)
    relabelled = ((key, image, "a") for key, image, _ in yielded())
    for samples in (others, fewer, relabelled):
        with pytest.raises(ShardError, match="other input or options"):
            shards.build(samples, tmp_path / "set")
    assert content(tmp_path / "set") == before


def test_a_set_in_an_object_store_is_the_same(tmp_path):
    wanted = shards.build(yielded(), tmp_path / "set", shard_size=5)
    with pytest.raises(StopError):
        shards.build(stopped(after=7), "memory://iterables/set", shard_size=5)
    assert shards.build(yielded(), "memory://iterables/set", shard_size=5).digest == wanted.digest
    assert not [
        name for name in spool.storage.listing("memory://iterables/set") if "samples-" in name
    ]


def test_a_part_of_an_iterable_is_held_out(tmp_path):
    keys = []
    for part in ("train", "val"):
        hold_out = shards.HoldOut(part, 0.25)
        index = shards.build(yielded(), tmp_path / part, hold_out=hold_out)
        assert index.classes == ("a", "b")
        assert {*index.samples["label"].tolist()} == {0, 1}
        keys.append({*index.keys})
    assert keys[0] | keys[1] == {key for key, _, _ in yielded()}
    assert not keys[0] & keys[1]


# what is left out, and what is refused


def test_what_is_no_image_is_rejected_by_its_key(tmp_path):
    half = encoded(Image.fromarray(PIXELS[0]).resize((99, 99)), "JPEG")[:-300]
    lazy = Image.open(io.BytesIO(half))
    samples = [
        ("good", PIXELS[0], 0),
        ("good", PIXELS[1], 0),
        ("none", None, 0),
        ("no bytes", b"", 0),
        ("no pixels", PIXELS[0][:0], 0),
        ("half.jpg", half, 0),
        ("lazy", lazy, 0),
        ("text", b"no image at all", 0),
        ("gone", tmp_path / "gone.jpg", 0),
    ]
    index = shards.build(samples, tmp_path / "set", max_rejects=0.9)
    assert index.rejects == {
        "corrupt image": ["half.jpg", "lazy"],
        "empty file": ["no bytes", "no pixels", "none"],
        "listed twice": ["good"],
        "not an image": ["text"],
        "unreadable": ["gone"],
    }
    assert (index.seen, len(index.samples)) == (9, 1)
    assert np.array_equal(shards.open(tmp_path / "set").image(0), PIXELS[0])


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cat", "cat"),
        ("", None),
        (None, None),
        (-1, None),
        (float("nan"), None),
        (3, "3"),
        (3.0, "3"),
        (np.int64(3), "3"),
        (np.array([3], np.uint8), "3"),
        (np.array([[3]]), "3"),
        (np.str_("cat"), "cat"),
        (True, "1"),
    ],
    ids=repr,
)
def test_a_label_is_a_name_a_number_or_none(tmp_path, label, name):
    index = shards.build([("7", PIXELS[0], label)], tmp_path / "set")
    assert index.classes == (() if name is None else (name,))


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    samples = [(number, PIXELS[number], number) for number in range(12)]
    index = shards.build(samples, tmp_path / "set")
    assert index.classes == tuple(map(str, range(12)))
    assert [int(key) for key in index.keys] == index.samples["label"].tolist()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (5, "iterable of (key, image, label) as the source, got int"),
        (b"photos", "got bytes"),
        ({"a": (PIXELS[0], 1)}, "got dict"),
        ([(PIXELS[0], 1)], "as sample 0 of the source, got (ndarray, int)"),
        (["ab"], "got str"),
        ([(None, PIXELS[0], 1)], "the key of sample 0, got NoneType"),
        ([("", PIXELS[0], 1)], "the key of sample 0, got ''"),
        ([("/a.png", PIXELS[0], 1)], "relative path"),
        ([("a/../../b", PIXELS[0], 1)], "relative path"),
        ([("a", PIXELS[0], [1, 2])], "the label of a, got [1, 2]"),
        ([("a", PIXELS[0], 1.5)], "the label of a, got 1.5"),
        ([("a", object(), 1)], "the image of a, got object"),
        ([("a", PIXELS[0].transpose(2, 0, 1), 1)], "permute(1, 2, 0)"),
        ([("a", PIXELS, 1)], "choose one of its images"),
        ([("a", PIXELS[..., 0].astype(complex), 1)], "got complex128"),
        ([("a", np.full((2, 2), 2**40), 1)], "numbers of 32 bits"),
        ([], "got none"),
    ],
)
def test_what_is_no_sample_is_refused_at_once(tmp_path, samples, message):
    with pytest.raises(ShardError) as refusal:
        shards.build(samples, tmp_path / "set")
    assert message in str(refusal.value)


def test_sets_of_parts_are_of_paths(tmp_path):
    with pytest.raises(ShardError, match=r"a path or a URL, got generator.*HoldOut"):
        shards.build_sets(yielded(), tmp_path / "sets", val_share=0.1)


def test_options_of_lists_are_refused(tmp_path):
    with pytest.raises(ShardError, match="columns with a list"):
        shards.build(yielded(), tmp_path / "set", columns=("a",))


# images in memory


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_an_image_of_any_mode_is_what_pillow_makes_of_it(mode):
    image = Image.fromarray(PIXELS[0]).convert(mode)
    _, plain = memory_image(image, "a")
    wanted = image.convert("RGB")
    assert np.array_equal(shards.decode(file_bytes(plain)), wanted)


@pytest.mark.parametrize(
    "values",
    [
        PIXELS[0, :, :, 0],
        PIXELS[0, :, :, :1],
        PIXELS[0, :, :, 0] > 99,
        np.dstack([PIXELS[0], PIXELS[1, :, :, 0]]),
        PIXELS[0, :, :, 0].astype(np.uint16) * 257,
        PIXELS[0, :, :, 0].astype(np.int64) * 70000 - 9,
        (PIXELS[0, :, :, 0] / 255).astype(np.float16),
        PIXELS[0, :, :, 0] * 1e6,
        PIXELS[0, ::2, ::-1],
    ],
    ids=lambda values: f"{values.dtype}{list(values.shape)}",
)
def test_an_array_keeps_all_its_numbers(values):
    _, plain = memory_image(values, "a")
    with Image.open(io.BytesIO(file_bytes(plain))) as image:
        read = np.asarray(image)
    wanted = values.squeeze() if values.shape[-1] == 1 else values
    if values.dtype == bool:
        wanted = values * 255
    assert np.array_equal(read, wanted.astype(np.float32) if values.dtype.kind == "f" else wanted)


def test_an_image_that_lies_is_upright_as_its_file_would_be():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(PIXELS[0]), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        _, plain = memory_image(image, "a")
        _, converted = memory_image(image.convert("RGB"), "a")
    for kept in (plain, converted):
        assert np.array_equal(shards.decode(file_bytes(kept)), shards.decode(data))


def test_equal_pixels_are_equal_content_and_others_are_not():
    image = Image.fromarray(PIXELS[0])
    assert memory_image(image, "a")[0] == memory_image(PIXELS[0], "b")[0]
    others = [PIXELS[1], PIXELS[0].reshape(8, 10, 3), PIXELS[0, :, :, 0], image.convert("RGBA")]
    assert len({memory_image(other, "a")[0] for other in [image, *others]}) == 5


# more than eight bits, other bands


def gray16(number):
    return PIXELS[number, :, :, 0].astype(np.uint16) * 16  # as a sensor of 12 bits has it


def test_arrays_of_16_bits_become_what_the_same_files_become(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(gray16(number)).save(folder / f"{number}.png")
    wanted = shards.build(folder, tmp_path / "wanted")
    samples = [(number, gray16(number), None) for number in range(6)]
    index = shards.build(samples, tmp_path / "set")
    assert index.shards == wanted.shards
    brightest = max(np.asarray(sample).max() for sample in images_of(tmp_path / "set"))
    assert brightest > 200


def images_of(folder):
    data = shards.open(folder)
    return [data.image(number) for number in range(len(data.keys))]


@pytest.mark.parametrize("options", [{}, {"value_range": "0,4095"}, {"alpha": "drop"}], ids=repr)
def test_a_finished_set_of_other_pixels_returns_with_the_same_options_only(tmp_path, options):
    def samples():
        for number in range(4):
            yield number, gray16(number), None
            yield f"rgba{number}", np.dstack([PIXELS[number], PIXELS[0, :, :, 0]]), None

    digest = shards.build(samples(), tmp_path / "set", **options).digest
    assert shards.build(samples(), tmp_path / "set", **options).digest == digest
    with pytest.raises(ShardError, match="other input or options"):
        shards.build(samples(), tmp_path / "set", value_range="1,99")


@pytest.mark.parametrize(
    "values",
    [
        PIXELS[0] / 255,
        PIXELS[0].astype(np.uint16) * 257,
        np.dstack([PIXELS[0, :, :, 0]] * 7).astype(np.int16),
        np.dstack([PIXELS[0], PIXELS[1]]),
        PIXELS[0, :, :, :2],
    ],
    ids=lambda values: f"{values.dtype}{[*values.shape]}",
)
def test_an_array_of_any_bands_keeps_all_its_numbers(values):
    tifffile = pytest.importorskip("tifffile", reason="pip install 'care-ssl[tiff]'")
    _, array = memory_image(values, "a")
    read = tifffile.imread(io.BytesIO(file_bytes(array)))
    assert np.array_equal(read, values.astype(np.float32) if values.dtype.kind == "f" else values)


def test_colours_from_0_to_1_are_those_of_bytes(tmp_path):
    pytest.importorskip("tifffile", reason="pip install 'care-ssl[tiff]'")
    shards.build([(n, PIXELS[n] / 255, None) for n in range(4)], tmp_path / "set")
    for sample in shards.open(tmp_path / "set"):
        difference = np.asarray(shards.decode(sample.data)).astype(int) - PIXELS[int(sample.key)]
        assert np.abs(difference).max() <= 1


def test_without_tifffile_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.memory_images.find_spec", lambda name: None)
    with pytest.raises(ShardError, match=r"care-ssl\[tiff\]"):
        shards.build([("a", PIXELS[0] / 255, 1)], tmp_path / "set")
