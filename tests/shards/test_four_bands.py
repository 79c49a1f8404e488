"""Sets whose fourth band, such as near infrared, stays a band of its own."""

import json
import numpy as np
import pytest
from made_images import encoded, image_bytes
from made_pixels import png, tiff
from PIL import Image
import shards
from shards import Reject, ShardError
from shards.images import decode_bands
from shards.plan import make_plan
from shards.rejects import RejectError
from shards.survey import survey

RGBN = (1, 2, 3, 4)


def four_bands(seed, size=(24, 20), most=255, dtype=np.uint8):
    """Values of four bands, of which the fourth would be taken for transparency."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, most + 1, (size[1], size[0], 4)).astype(dtype)


def write(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def values():
    return {str(seed): four_bands(seed) for seed in range(3)}


@pytest.fixture
def source(tmp_path, values):
    files = {f"{name}.png": encoded(Image.fromarray(of_image)) for name, of_image in values.items()}
    return write(tmp_path / "src", files)


def image_of(data, name):
    return data.image(data.keys.tolist().index(name))


@pytest.mark.parametrize("order", [RGBN, (4, 3, 2, 1)])
def test_four_bands_are_kept_as_they_are_in_the_order_that_is_named(
    tmp_path, source, values, order
):
    shards.build(source, tmp_path / "set", bands=order)
    data = shards.open(tmp_path / "set")
    assert data.channels == 4
    for name, want in values.items():
        image = image_of(data, name)
        # no operation of Pillow's multiplies the first three by the fourth
        assert image.mode == "RGBX"
        np.testing.assert_array_equal(image, want[..., [band - 1 for band in order]])
    assert data.index.pixels.rule == {"bands": [*order]}
    assert shards.verify(tmp_path / "set") == []


@pytest.mark.parametrize("form", [png, tiff])
def test_twelve_bits_of_four_bands_become_gray_levels_by_one_range(tmp_path, form):
    pytest.importorskip("tifffile")
    suffix = "png" if form is png else "tif"
    values = four_bands(0, most=4095, dtype=np.uint16)
    src = write(tmp_path / "src", {f"a.{suffix}": form(values)})
    index = shards.build(src, tmp_path / "set", bands=RGBN)
    assert index.pixels.rule == {"integers": [0, 4095], "bands": [1, 2, 3, 4]}
    got = np.asarray(image_of(shards.open(tmp_path / "set"), "a"), float)
    np.testing.assert_allclose(got, values / 4095 * 255, atol=0.51)


def test_an_image_that_lies_is_made_upright_with_all_bands(tmp_path, values):
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.fromarray(values["0"]), exif=exif)
    shards.build(write(tmp_path / "src", {"a.png": data}), tmp_path / "set", bands=RGBN)
    got = np.asarray(image_of(shards.open(tmp_path / "set"), "a"))
    np.testing.assert_array_equal(got, np.rot90(values["0"], -1))


def test_images_of_three_bands_are_left_out_by_name(tmp_path, source):
    (source / "b.jpg").write_bytes(image_bytes(1, file_format="JPEG"))
    (source / "c.png").write_bytes(image_bytes(2))
    index = shards.build(source, tmp_path / "set", bands=RGBN, max_rejects=0.5)
    assert len(index.samples) == 3
    assert sorted(index.rejects[str(Reject.FEW_BANDS)]) == ["b.jpg", "c.png"]


def test_earlier_versions_refuse_such_a_set_and_read_all_others(tmp_path, source):
    schemas = {}
    for name, bands in (("three", None), ("chosen", (3, 2, 1)), ("four", RGBN)):
        shards.build(source, tmp_path / name, bands=bands)
        schemas[name] = json.loads((tmp_path / name / "index.json").read_text())["schema"]
        assert shards.open(tmp_path / name).channels == (4 if name == "four" else 3)
        assert shards.open(tmp_path / name).image(0).mode == ("RGBX" if name == "four" else "RGB")
    assert schemas == {"three": 2, "chosen": 2, "four": 3}


def test_what_cannot_have_four_bands_says_so(tmp_path, source):
    with pytest.raises(ShardError, match=r"four bands are kept as PNGs, which max_side"):
        shards.build(source, tmp_path / "set", bands=RGBN, max_side=16)
    with pytest.raises(ShardError, match=r"one number, three, or four.*got 1,2"):
        shards.build(source, tmp_path / "set", bands=(1, 2))
    boxes = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8]}
    document = {
        "images": [{"id": 1, "file_name": "0.png", "width": 24, "height": 20}],
        "annotations": [boxes],
        "categories": [{"id": 1, "name": "a"}],
    }
    (source / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(ShardError, match=r"detectors see red, green and blue; name three bands"):
        shards.build(source, tmp_path / "set", bands=RGBN)


def test_a_sample_without_four_bands_is_told(values):
    with pytest.raises(RejectError, match="RGB"):
        decode_bands(image_bytes(0))
    with pytest.raises(RejectError):
        decode_bands(encoded(Image.fromarray(values["0"]))[:60])


def test_people_see_the_first_three_bands(tmp_path, source, values):
    looks = survey(make_plan(source, bands=RGBN)).looks
    assert len(looks) == 3
    for look in looks:
        assert look.image.mode == "RGB"
        want = values[look.sample.name.removesuffix(".png")]
        np.testing.assert_array_equal(look.image, want[..., :3])
