"""The pixel rule: what of values beyond 8 bits, of bands and of alpha is in a set."""

import io
import json
import re
import sys
import tarfile
import numpy as np
import pytest
from made_images import encoded, image_bytes, populate
from made_pixels import png, ppm, tiff
from PIL import Image
import shards
from shards import Reject, ShardError, boxes, images
from shards.images import decode
from shards.pixel_report import PixelCounts, PixelReport, differences
from shards.pixel_rules import decide_rule
from shards.pixels import PixelRule
from shards.rejects import RejectError
from shards.sources.candidates import Candidate


def scene(seed, bands, low=0, high=4095, dtype=np.uint16, size=(24, 20)):
    """Values that fill a range, with structure: ramps and noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(0, 1, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    shares = np.clip(ramp + rng.uniform(-0.1, 0.1, (height, width, bands)), 0, 1)
    shares[0, 0], shares[-1, -1] = 0, 1
    return (low + shares * (high - low)).astype(dtype)


def write(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def pixels_of(folder, name):
    """The pixels of a sample, by the stem of its file."""
    data = shards.open(folder)
    return np.asarray(data.image(list(data.keys).index(name)), int)


# 12 bits in 16, and all containers of 16 bits

FORMS = {
    "gray.png": (png, 1),
    "gray.tif": (tiff, 1),
    "rgb.png": (png, 3),
    "rgb.tif": (tiff, 3),
    "rgb.ppm": (ppm, 3),
}


@pytest.mark.parametrize("name", FORMS)
def test_twelve_bits_fill_the_grey_levels_in_every_container(tmp_path, name):
    form, bands = FORMS[name]
    suffix = name.partition(".")[2]
    values = {f"{seed}": scene(seed, bands) for seed in range(3)}
    src = write(tmp_path / "src", {f"{n}.{suffix}": form(v) for n, v in values.items()})
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {"integers": [0, 4095]}
    assert index.pixels.counts.converted == 3
    for key, value in values.items():
        want = np.broadcast_to(value / 4095 * 255, (*value.shape[:2], 3))
        np.testing.assert_allclose(pixels_of(tmp_path / "set", key), want, atol=0.51)


def test_the_case_of_twelve_bit_pngs(tmp_path):
    values = {f"{seed}": scene(seed, 1, 529, 3565) for seed in range(6)}
    src = write(tmp_path / "src", {f"{n}.png": png(v) for n, v in values.items()})
    shards.build(src, tmp_path / "set")
    levels = np.unique(pixels_of(tmp_path / "set", "0"))
    assert len(levels) > 100
    assert levels.max() > 200


def test_values_that_use_all_sixteen_bits_keep_their_meaning(tmp_path):
    value = scene(0, 3, 0, 65535)
    src = write(tmp_path / "src", {"0.png": png(value)})
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {"integers": [0, 65535]}
    np.testing.assert_allclose(pixels_of(tmp_path / "set", "0"), value / 257, atol=0.51)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (scene(0, 1, 0, 1, np.float32), {"floats": [0, 1]}),
        (scene(0, 1, 0, 255, np.float32), {"floats": [0, 255]}),
        (scene(0, 1, -1024, 3071, np.int16), {"integers": [-1100, 3100]}),
        (scene(0, 1, -1, 1, np.float32), {"floats": [-1, 1]}),
        (scene(0, 1, 0, 10_000, np.uint16), {"integers": [0, 16383]}),
        (scene(0, 1, 30_000, 34_000, np.uint16), {"integers": [30000, 34000]}),
        (scene(0, 1, 0.02, 1.4, np.float32), {"floats": [0, 1.4]}),
    ],
)
def test_the_range_is_a_usual_one_or_the_values_own(tmp_path, value, rule):
    src = write(tmp_path / "src", {"0.tif": tiff(value)})
    index = shards.build(src, tmp_path / "set")
    ((kind, pair),) = rule.items()
    assert index.pixels.rule[kind] == pytest.approx(pair, abs=0.02 * (pair[1] - pair[0]))
    low, high = index.pixels.rule[kind]
    want = np.clip((value[..., 0].astype(float) - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(pixels_of(tmp_path / "set", "0")[..., 0], want, atol=0.51)


@pytest.mark.parametrize("by", ["share", "hold_out"])
def test_all_parts_of_a_source_have_the_rule_of_all_its_images(tmp_path, by):
    tops = {f"{number}": 900 if number % 4 else 4000 for number in range(12)}
    src = write(tmp_path / "src", {f"{n}.png": png(scene(0, 1, 0, t)) for n, t in tops.items()})
    parts = [{"share": (0, 0.3)}, {"share": (0.3, 1)}]
    if by == "hold_out":
        parts = [{"hold_out": shards.HoldOut(part, 0.1)} for part in ("train", "val")]
    indexes = [shards.build(src, tmp_path / f"{n}", **part) for n, part in enumerate(parts)]
    assert sum(len(index.samples) for index in indexes) == 12
    assert [index.pixels.rule for index in indexes] == [{"integers": [0, 4095]}] * 2


def test_one_hot_pixel_does_not_darken_a_set(tmp_path):
    value = scene(0, 1, size=(60, 60))
    value[3, 3] = 65535
    src = write(tmp_path / "src", {"0.png": png(value)})
    assert shards.build(src, tmp_path / "set").pixels.rule == {"integers": [0, 4095]}


def test_pixels_without_a_value_are_black_and_do_not_count(tmp_path):
    value = scene(0, 1, 0, 1, np.float32)
    value[:5] = -9999
    value[5, 0], value[5, 1], value[5, 2] = np.nan, np.inf, -3.4e38
    src = write(tmp_path / "src", {"0.tif": tiff(value, no_data="-9999")})
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {"floats": [0, 1]}
    got = pixels_of(tmp_path / "set", "0")
    assert (got[:5] == 0).all()
    assert (got[5, :3] == 0).all()


def test_small_values_that_mean_white_are_white(tmp_path):
    value = scene(0, 1)
    src = write(tmp_path / "src", {"0.tif": tiff(value, photometric=0)})
    shards.build(src, tmp_path / "set")
    want = 255 - value[..., 0] / 4095 * 255
    np.testing.assert_allclose(pixels_of(tmp_path / "set", "0")[..., 0], want, atol=0.51)


def test_the_range_can_be_given_as_values_or_as_percentages(tmp_path):
    value = scene(0, 1)
    src = write(tmp_path / "src", {"0.png": png(value)})
    index = shards.build(src, tmp_path / "values", value_range="1000,2000")
    assert index.pixels.rule["integers"] == [1000, 2000]
    want = np.clip((value[..., 0] - 1000.0) / 1000 * 255, 0, 255)
    np.testing.assert_allclose(pixels_of(tmp_path / "values", "0")[..., 0], want, atol=0.51)
    shards.build(src, tmp_path / "parts", value_range="10%,90%")
    low, high = np.percentile(value, (10, 90))
    want = np.clip((value[..., 0] - low) / (high - low) * 255, 0, 255)
    np.testing.assert_allclose(pixels_of(tmp_path / "parts", "0")[..., 0], want, atol=0.51)


@pytest.mark.parametrize("text", ["4095", "5,5", "9,1", "a,b", "10%,101%", "1%,2", "nan,1", ""])
def test_a_range_that_is_none_is_refused(tmp_path, text):
    src = populate(tmp_path / "src", ["0.png"])
    with pytest.raises(ShardError, match="wanted as the range two values such as 0,4095"):
        shards.build(src, tmp_path / "set", value_range=text)


def test_options_and_rules_are_in_the_digest_and_change_nothing_of_ordinary_sets(tmp_path):
    src = write(tmp_path / "src", {"0.png": png(scene(0, 1)), "1.jpg": image_bytes()})
    digests = {
        shards.build(src, tmp_path / str(number), **options).plan
        for number, options in enumerate([{}, {"value_range": "0,99"}, {"min_side": 4}])
    }
    assert len(digests) == 3
    with pytest.raises(ShardError, match="other input or options"):
        shards.build(src, tmp_path / "0", value_range="0,98")
    plain = populate(tmp_path / "plain", ["a.jpg", "b.png"])
    index = shards.build(plain, tmp_path / "plain set")
    assert b"pixels" not in (tmp_path / "plain set" / "index.json").read_bytes()
    assert index.pixels.counts.converted == 0


def test_a_build_whose_images_would_go_black_stops(tmp_path):
    # 12 bits in a folder of 16: too dark to learn from
    files = {f"{n}.png": png(scene(n, 1, 0, 2000)) for n in range(5)}
    files |= {f"bright{n}.png": png(scene(n, 1, 0, 65535)) for n in range(5)}
    src = write(tmp_path / "src", files)
    with pytest.raises(ShardError, match=r"5 of 10 images .* fewer than 16 of 256.*--range"):
        shards.build(src, tmp_path / "set")
    index = shards.build(src, tmp_path / "chosen", value_range="0,65535")
    assert index.pixels.counts.faded == 5


def test_wide_images_are_converted_whatever_is_validated(tmp_path):
    src = write(tmp_path / "src", {"0.png": png(scene(0, 1)), "1.jpg": image_bytes()})
    sets = []
    for validate in ("decode", "header", "none"):
        shards.build(src, tmp_path / validate, validate=validate)
        sets.append((tmp_path / validate / "shard-000000.tar").read_bytes())
    assert sets[0] == sets[1] == sets[2]


def test_small_images_keep_to_the_rule_when_they_are_shrunk(tmp_path):
    src = write(tmp_path / "src", {"0.png": png(scene(0, 3, size=(64, 48)))})
    shards.build(src, tmp_path / "set", max_side=32)
    data = shards.open(tmp_path / "set")
    assert data.image(0).size == (32, 24)
    assert np.asarray(data.image(0)).max() > 200


# bands and alpha


def near_infrared(seed):
    return scene(seed, 4, 30, 220, np.uint8, size=(60, 50))


def test_near_infrared_that_is_called_alpha_is_left_out(tmp_path, capsys):
    values = [near_infrared(seed) for seed in range(4)]
    files = {f"{n}.tif": tiff(value, alpha=True) for n, value in enumerate(values)}
    src = write(tmp_path / "src", files)
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {"alpha": "drop"}
    np.testing.assert_array_equal(pixels_of(tmp_path / "set", "0"), values[0][..., :3])
    assert "no transparency in 4 of 4 images" in " ".join(capsys.readouterr().err.split())
    shards.build(src, tmp_path / "white", alpha="white")
    share = values[0][..., 3:] / 255
    want = values[0][..., :3] * share + 255 * (1 - share)
    np.testing.assert_allclose(pixels_of(tmp_path / "white", "0"), want, atol=1)


def test_transparency_stays_what_it_is(tmp_path):
    value = scene(0, 4, 0, 255, np.uint8)
    value[..., 3] = np.where(value[..., 3] > 128, 255, 0)
    data = encoded(Image.fromarray(value))
    src = write(tmp_path / "src", {"0.png": data})
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {}
    assert shards.open(tmp_path / "set")[0].data == data
    shards.build(src, tmp_path / "drop", alpha="drop")
    np.testing.assert_array_equal(pixels_of(tmp_path / "drop", "0"), value[..., :3])


def test_bands_are_chosen_by_number(tmp_path):
    value = scene(0, 4, 0, 255, np.uint8)
    src = write(tmp_path / "src", {"0.png": encoded(Image.fromarray(value))})
    shards.build(src, tmp_path / "set", bands=(4, 3, 2))
    np.testing.assert_array_equal(pixels_of(tmp_path / "set", "0"), value[..., [3, 2, 1]])
    shards.build(src, tmp_path / "gray", bands=(2,))
    want = np.repeat(value[..., 1:2], 3, 2)
    np.testing.assert_array_equal(pixels_of(tmp_path / "gray", "0"), want)
    with pytest.raises(ShardError, match="fewer bands than --bands names"):
        shards.build(src, tmp_path / "none", bands=(5, 2, 1))


def test_a_fourth_band_of_another_name_is_left_out(tmp_path, capsys):
    value = scene(0, 4, 0, 255, np.uint8)
    src = write(tmp_path / "src", {"0.tif": tiff(value)})
    shards.build(src, tmp_path / "set")
    np.testing.assert_array_equal(pixels_of(tmp_path / "set", "0"), value[..., :3])
    assert "images have a fourth band, which is left out" in capsys.readouterr().err


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2), (1, 2, 3, 4, 5)])
def test_bands_that_are_none_are_refused(tmp_path, bands):
    src = populate(tmp_path / "src", ["0.png"])
    with pytest.raises(ShardError, match="wanted as bands one number, three, or four"):
        shards.build(src, tmp_path / "set", bands=bands)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.uint8])
def test_many_bands_are_refused_until_three_are_chosen(tmp_path, dtype):
    pytest.importorskip("tifffile", reason="reads TIFFs of many bands")
    value = scene(0, 13, 0, 200, dtype)
    src = write(tmp_path / "src", {"0.tif": tiff(value)})
    with pytest.raises(ShardError, match="choose them by --bands"):
        shards.build(src, tmp_path / "none")
    shards.build(src, tmp_path / "set", bands=(4, 3, 2), value_range="0,255")
    got = pixels_of(tmp_path / "set", "0")
    np.testing.assert_allclose(got, value[..., [3, 2, 1]], atol=0.51)


@pytest.mark.parametrize("options", [{"separate": True}, {}])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.float16, np.int8])
def test_tiffs_that_pillow_misreads_are_read_by_tifffile(tmp_path, options, dtype):
    pytest.importorskip("tifffile")
    value = scene(0, 3, 0, 100, dtype)
    src = write(tmp_path / "src", {"0.tif": tiff(value, **options)})
    shards.build(src, tmp_path / "set", value_range="0,100")
    want = value.astype(float) / 100 * 255
    np.testing.assert_allclose(pixels_of(tmp_path / "set", "0"), want, atol=0.6)


def test_without_tifffile_such_a_tiff_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    src = write(tmp_path / "src", {"0.tif": tiff(scene(0, 13))})
    with pytest.raises(ShardError, match=r"pip install 'care-ssl\[tiff\]'"):
        shards.build(src, tmp_path / "set")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg_2000_in_colour_keeps_all_its_bits(tmp_path, bits):
    imagecodecs = pytest.importorskip("imagecodecs", reason="pip install 'care-ssl[tiff]'")
    values = {f"{seed}": scene(seed, 3, 0, 1000) for seed in range(3)}
    for value in values.values():
        value[0, 0] = 1000
    options = {"level": 0, "reversible": True, "bitspersample": bits, "codecformat": "jp2"}
    files = {f"{n}.jp2": imagecodecs.jpeg2k_encode(v, **options) for n, v in values.items()}
    src = write(tmp_path / "src", files)
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.rule == {"integers": [0, 1023]}
    for key, value in values.items():
        want = value / 1023 * 255
        np.testing.assert_allclose(pixels_of(tmp_path / "set", key), want, atol=0.51)


def test_without_imagecodecs_such_a_jpeg_2000_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG2000")
    plain = file.getvalue()
    assert images.read(plain, rule=PixelRule()).is_converted is False
    # the depths of its components are said in the header and in the codestream
    sizes = plain.index(b"\xff\x4f\xff\x51") + 42
    deep = bytearray(plain)
    for component in range(3):
        deep[sizes + 3 * component] = 11
    with pytest.raises(RejectError) as error:
        images.read(bytes(deep), rule=PixelRule())
    assert error.value.reason == Reject.DEEP_JPEG2000
    assert images.needs_rule(bytes(deep), PixelRule())


def test_a_pillow_that_reads_words_as_bytes_is_not_believed(monkeypatch):
    # Pillow takes each band of a separate TIFF of 16 bits for bytes
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(RejectError) as error:
        images.read(tiff(scene(0, 3), separate=True), rule=PixelRule())
    assert error.value.reason == Reject.ODD_TIFF


def test_gray_and_alpha_of_sixteen_bits():
    value = scene(0, 2, 0, 65535)
    value[..., 1] = np.where(value[..., 1] > 30_000, 65535, 0)
    image = decode(png(value), PixelRule(integers=(0, 65535)))
    share = value[..., 1:] / 65535
    want = value[..., :1] / 257 * share + 255 * (1 - share)
    np.testing.assert_allclose(np.asarray(image), np.repeat(want, 3, 2), atol=1)


# the same where images are read without a set


def test_annotated_files_are_seen_as_a_set_of_them_has_them(tmp_path):
    files = {f"{n}.png": png(scene(n, 1)) for n in range(3)}
    src = write(tmp_path / "src", files)
    entries = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in range(3)]
    objects = [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 9, 9]} for n in range(3)]
    document = {
        "images": entries,
        "annotations": objects,
        "categories": [{"id": 1, "name": "a"}],
    }
    (src / "annotations.json").write_text(json.dumps(document))
    shards.build(src, tmp_path / "set")
    of_files = boxes.load(src)
    of_set = boxes.load(tmp_path / "set")
    by_name = {picture.path.name: number for number, picture in enumerate(of_set.pictures)}
    for number, picture in enumerate(of_files.pictures):
        want = of_set.image(by_name[picture.path.name])
        np.testing.assert_array_equal(of_files.image(number), want)


def test_the_rule_of_files_is_decided_without_those_that_are_broken(tmp_path):
    src = write(tmp_path / "src", {"0.png": png(scene(0, 1)), "1.png": b"text", "2.png": b""})
    candidates = [Candidate(str(file), file.name, size=1) for file in sorted(src.iterdir())]
    assert decide_rule(candidates).rule.integers == (0, 4095)


def test_sets_of_other_ranges_are_told_from_those_of_one():
    twelve, sixteen = (
        PixelReport({"integers": [0, white]}, PixelCounts()) for white in (4095, 65535)
    )
    assert differences(twelve, sixteen) == [
        "values of more than 8 bits became gray levels by other ranges in train (0 to 4,095) and "
        "val (0 to 65,535): build both with one --range"
    ]
    assert not differences(twelve, twelve)
    assert not differences(twelve, PixelReport({}))


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ({"percentiles": [1, 99]}, {"integers": [0, 4095]}, r"1 % to 99 % of each.*0 to 4,095"),
        ({"floats": [-1, 1]}, {"percentiles": [0, 100]}, r"-1 to 1.*0 % to 100 % of each"),
        ({"percentiles": [1, 99]}, {"percentiles": [2, 98]}, r"1 % to 99 %.*2 % to 98 %"),
        ({"integers": [0, 9], "floats": [0, 1]}, {"floats": [0, 2]}, r"\(0 to 9, 0 to 1\).*0 to 2"),
        ({"bands": [4, 3, 2]}, {}, r"bands became colours in train \(4,3,2\) and val \(the first"),
        ({"bands": [1]}, {"bands": [2]}, r"train \(1\) and val \(2\).* --bands"),
        ({"alpha": "drop"}, {}, r"left out in train, and is transparency in val.* --alpha"),
        ({}, {"alpha": "drop"}, r"left out in val, and is transparency in train"),
    ],
)
def test_whatever_differs_in_the_rules_of_two_sets_is_said(train, val, said):
    counts = PixelCounts(converted=3)
    (line,) = differences(PixelReport(train, counts), PixelReport(val, counts))
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ({"integers": [0, 4095]}, {"floats": [0, 1]}),
        ({"integers": [0, 4095], "floats": [0, 4095]}, {"integers": [0, 4095]}),
        ({"percentiles": [1, 99]}, {}),
        ({"bands": [3, 2, 1], "alpha": "drop"}, {"bands": [3, 2, 1]}),
    ],
)
def test_rules_by_which_equal_values_become_equal_are_no_difference(train, val):
    counts = PixelCounts(converted=3)
    assert not differences(PixelReport(train, counts), PixelReport(val, counts))


def test_percentiles_that_made_no_image_are_no_difference():
    chosen = PixelReport({"percentiles": [1, 99]})
    assert not differences(chosen, PixelReport({"integers": [0, 4095]}, PixelCounts(converted=1)))


def test_a_set_is_told_of_one_beside_it_that_was_built_by_another_rule(tmp_path, capsys):
    for name, most in (("train", 4000), ("val", 60000), ("photos", 60000)):
        files = {f"{seed}.png": png(scene(seed, 1, 0, most)) for seed in range(2)}
        write(tmp_path / "src" / name, files)
        capsys.readouterr()
        shards.build(tmp_path / "src" / name, tmp_path / "sets" / name)
        said = " ".join(capsys.readouterr().err.split())
        assert ("by other ranges in train (0 to 4,095) and val (0 to 65,535)" in said) == (
            name == "val"
        )
    shards.build(tmp_path / "src" / "val", tmp_path / "one" / "val", value_range="0,4095")
    capsys.readouterr()
    shards.build(tmp_path / "src" / "train", tmp_path / "one" / "train", value_range="0,4095")
    assert "other ranges" not in capsys.readouterr().err
    (tmp_path / "one" / "train" / "index.json").write_text("broken")
    shards.build(tmp_path / "src" / "train", tmp_path / "one" / "test")


def test_the_rule_takes_no_broken_file_that_a_decoder_refuses(unpacked):
    root = unpacked("malformed.tar") / "malformed"
    files = sorted(file for file in root.rglob("*") if file.is_file())
    assert len(files) > 200
    for file in files:
        data = file.read_bytes()
        outcomes = []
        for rule in (None, PixelRule()):
            try:
                outcomes.append(decode(data, rule).size)
            except RejectError as error:
                outcomes.append(error.reason)
        plain, by_rule = outcomes
        is_tiff = data.startswith((b"II", b"MM"))  # which tifffile may read, or is to
        assert plain == by_rule or is_tiff, (file.name, plain, by_rule)
        try:
            images.read_values(data)
        except RejectError:
            continue


# nearly constant images, small and large ones


def test_nearly_constant_images_are_told(tmp_path, capsys):
    rng = np.random.default_rng(0)
    files = {
        f"{n}.png": encoded(Image.fromarray(rng.integers(10, 13, (20, 20, 3), dtype=np.uint8)))
        for n in range(4)
    }
    src = write(tmp_path / "src", files | {"5.jpg": image_bytes()})
    index = shards.build(src, tmp_path / "set")
    assert (index.pixels.counts.looked_at, index.pixels.counts.flat) == (5, 4)
    assert "4 of 5 images" in " ".join(capsys.readouterr().err.split())


def test_elongated_images_are_told(tmp_path, capsys):
    long, wide = (image_bytes(size=size, file_format="JPEG") for size in ((90, 20), (20, 80)))
    deep = Image.linear_gradient("L").resize((10, 50)).convert("I;16")
    made = {"16.png": encoded(deep)}  # of those that the rule makes, too
    src = write(tmp_path / "src", {"a.jpg": long, "b.jpg": wide} | made)
    index = shards.build(src, tmp_path / "set")
    assert (index.pixels.counts.converted, index.pixels.counts.elongated) == (1, 2)
    assert shards.open(tmp_path / "set").index.pixels == index.pixels
    assert "2 of 3 images that were looked at are more than four times" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_set_of_ordinary_shapes_says_nothing_of_them(tmp_path, capsys):
    src = write(tmp_path / "src", {f"{n}.jpg": image_bytes(size=(40, 30)) for n in range(3)})
    index = shards.build(src, tmp_path / "set")
    assert index.pixels.document() == {}
    assert "as long as wide" not in capsys.readouterr().err


def test_images_of_two_values_are_not_constant(tmp_path):
    value = np.zeros((20, 20), np.uint8)
    value[5:9, 5:9] = 255
    src = write(tmp_path / "src", {"0.png": encoded(Image.fromarray(value))})
    assert shards.build(src, tmp_path / "set").pixels.counts.flat == 0


def test_small_images_can_be_left_out(tmp_path):
    files = {"a.png": image_bytes(size=(1, 1)), "b.png": image_bytes(size=(40, 9))}
    src = write(tmp_path / "src", files | {"c.jpg": image_bytes(size=(40, 40), file_format="JPEG")})
    for validate in ("decode", "none"):
        index = shards.build(
            src, tmp_path / validate, min_side=10, max_rejects=1, validate=validate
        )
        assert index.rejects == {Reject.TOO_SMALL: ["a.png", "b.png"]}


def test_a_large_jpeg_is_read_at_a_fraction(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(images, "MAX_JPEG_PIXELS", 100_000)
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1))
    large = encoded(Image.fromarray(ramp), "JPEG", quality=95)
    src = write(tmp_path / "src", {"0.jpg": large})
    with pytest.raises(ShardError, match="too large"):
        shards.build(src, tmp_path / "none")
    shards.build(src, tmp_path / "set", max_side=60)
    image = shards.open(tmp_path / "set").image(0)
    assert image.size == (60, 40)
    want = Image.fromarray(ramp).resize((60, 40), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(np.asarray(image)[..., 0], want, atol=8)
    gigantic = encoded(Image.new("L", (400, 300)), "JPEG")
    with pytest.raises(RejectError) as error:
        images.read(gigantic, pixels=False, fit=60)
    assert error.value.reason == Reject.TOO_LARGE


# kinds that Pillow alone does not read


def test_a_class_that_vanishes_is_no_success(tmp_path):
    src = populate(tmp_path / "src", [f"dogs/{n}.jpg" for n in range(40)])
    write(src / "cats", {"0.tga": b"tga", "1.tga": b"tga"})
    with pytest.raises(ShardError, match=r"1 of 2 classes \(cats\): 2 TGA"):
        shards.build(src, tmp_path / "set", max_rejects=0.1)
    assert shards.build(src, tmp_path / "all", max_rejects=1).classes == ("cats", "dogs")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.CR2", "develop it"),
        ("a.exr", "TIFF of 32 bits"),
        ("a.dcm", "PNG of 16 bits"),
        ("a.psd", "export it"),
        ("a.tga", "convert it to PNG"),
    ],
)
def test_kinds_that_are_not_read_say_what_helps(tmp_path, name, words):
    src = populate(tmp_path / "src", ["0.jpg"])
    (src / name).write_bytes(b"II*\0 anything")
    with pytest.raises(ShardError, match=words):
        shards.build(src, tmp_path / "set")


@pytest.mark.parametrize("form", ["tar", "table", "tars"])
def test_raw_files_in_tars_and_tables_are_named_too(tmp_path, form):
    src = populate(tmp_path / "src", ["ant/1.jpg", "bee/2.jpg"])
    for name in ("ant/1.CR2", "bee/3.CR2", "x.dng"):
        (src / name).write_bytes(b"II*\0")
    names = sorted(path.relative_to(src).as_posix() for path in src.rglob("*.*"))
    source = src / "all.csv"
    if form == "table":
        lines = [f"{name},{name[0]}" for name in names if name != "ant/1.CR2"]
        source.write_text("\n".join(("image,label", *lines)))
    else:
        source = tmp_path / "all.tar"
        with tarfile.open(source, "w") as tar:
            for name in names:
                tar.add(src / name, name)
        if form == "tars":
            (tmp_path / "d").mkdir()
            source = source.rename(tmp_path / "d/all.tar").parent
            (source / "beside.NEF").write_bytes(b"II*\0")
    index = shards.build(source, tmp_path / "set", max_rejects=1)
    raw = {name.rpartition("/")[2] for name in index.rejects.pop(Reject.RAW)}
    assert raw == {"3.CR2", "x.dng", *(["beside.NEF"] if form == "tars" else [])}
    assert index.rejects == {}
    # also beside JPEGs in a tar, folders are classes
    assert len(index.classes) == 2


def test_raw_files_beside_their_jpegs_are_no_lost_images(tmp_path):
    src = populate(tmp_path / "src", ["a/IMG_1.JPG", "a/IMG_2.JPG"])
    (src / "a" / "IMG_1.CR2").write_bytes(b"II*\0")
    index = shards.build(src, tmp_path / "set")
    assert index.rejects == {Reject.OTHER_FILE: ["a/IMG_1.CR2"]}


def test_heic_without_its_plugin_says_what_to_install_and_is_tried_again(tmp_path, monkeypatch):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    src = write(tmp_path / "src", {})
    populate(src, ["dogs/b.jpg"])
    write(src / "cats", {"a.heic": heic})
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    for max_rejects in (0, 0.6):
        with pytest.raises(ShardError, match=r"1 HEIC \(pip install 'care-ssl\[heif\]'"):
            shards.build(src, tmp_path / "set", max_rejects=max_rejects)
        assert not list((tmp_path / "set").glob(".shard-*.json"))


@pytest.mark.parametrize(
    ("package", "file_format", "suffix"),
    [("pillow_heif", "HEIF", "heic"), ("pillow_jxl", "JXL", "jxl")],
)
def test_plugins_give_lossless_pngs_of_upright_images(tmp_path, package, file_format, suffix):
    module = pytest.importorskip(package, reason="reads this format")
    if package == "pillow_heif":
        module.register_heif_opener()
    image = Image.fromarray(scene(0, 3, 0, 255, np.uint8, size=(64, 48)))
    file = io.BytesIO()
    image.save(file, file_format)
    src = write(tmp_path / "src", {f"0.{suffix}": file.getvalue()})
    shards.build(src, tmp_path / "set")
    file.seek(0)
    np.testing.assert_array_equal(pixels_of(tmp_path / "set", "0"), Image.open(file).convert("RGB"))
    assert shards.open(tmp_path / "set")[0].data.startswith(b"\x89PNG")
    # of annotated images only the header is read
    assert images.upright_size(src / f"0.{suffix}") == image.size
    assert images.upright_size(io.BytesIO(file.getvalue())) == image.size


def test_nothing_is_printed_of_broken_tiffs(capfd):
    value = scene(0, 3, 0, 255, np.uint8, size=(60, 60))
    data = bytearray(encoded(Image.fromarray(value), "TIFF", compression="tiff_lzw"))
    middle = len(data) // 2
    data[middle : middle + 60] = b"\xff" * 60
    with pytest.raises(RejectError):
        images.read(bytes(data), rule=PixelRule())
    with pytest.raises(RejectError):
        images.read(tiff(scene(0, 13)))
    assert capfd.readouterr() == ("", "")
