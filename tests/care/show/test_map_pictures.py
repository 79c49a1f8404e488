"""Pictures of where encoders look, side by side."""

from io import BytesIO
import numpy as np
import pytest
import torch
from PIL import Image
from care import CareError, build_encoder, resnet18, streams_for
from care.evaluate.class_probe import ClassProbe
from care.evaluate.images import centre_crop
from care.show import Attending, attention_map, class_map, overlay, transformer_map
from care.show.map_pictures import Network, draw_maps
from care.show.map_sheet import LEGEND_HEIGHT
from care.train.photometrics import normalize
from shards.some_images import NamedImage

CELL = 32
PITCH = CELL + 4


@pytest.fixture
def networks():
    c, t = streams_for("resnet18-small-half", size=CELL, blocks=2)
    torch.manual_seed(1)
    other = resnet18(small=True, half=True).eval()
    probe = ClassProbe(torch.randn(2, other.features), torch.zeros(2), ("cat", "dog"))
    return {
        "run": Network(c.backbone.online.eval(), t.backbone.online.eval()),
        "other": Network(other, probe=probe),
    }


@pytest.fixture
def images(make_image):
    return [NamedImage(f"folder/{n} a.jpg", make_image(n, (50, 40))) for n in range(2)]


def pixels_of(images):
    crops = np.stack([np.asarray(centre_crop(named.image, CELL)) for named in images])
    return normalize(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)


def cell_of(pictures, row, column):
    """A picture of the sheet; the names beside the rows are as wide as the rest leaves."""
    sheet = Image.open(BytesIO(pictures.sheet)).convert("RGB")
    margin = 84
    x, y = margin + column * PITCH, row * PITCH
    return np.asarray(sheet.crop((x, y, x + CELL, y + CELL))).astype(int)


def draw(networks, images, **settings):
    return draw_maps(networks, images, size=CELL, cell=CELL, **settings)


def test_every_encoder_has_a_row_of_its_maps_and_each_map_a_file(networks, images) -> None:
    pictures = draw(networks, images)
    assert pictures.rows == ["run", "other"]
    crops = [centre_crop(named.image, CELL) for named in images]
    for row, network in enumerate(networks.values(), start=1):
        maps = attention_map(network.encoder, pixels_of(images))
        for column, (crop, cam) in enumerate(zip(crops, maps, strict=True)):
            want = np.asarray(overlay(crop, cam)).astype(int)
            assert np.abs(cell_of(pictures, row, column) - want).max() <= 1
            name = f"{pictures.rows[row - 1]}/{column + 1:02d}-folder-{column}-a.png"
            file = Image.open(BytesIO(pictures.files[name]))
            assert np.abs(np.asarray(file).astype(int) - want).max() <= 1
    assert np.array_equal(cell_of(pictures, 0, 1), np.asarray(crops[1]))
    assert len(pictures.files) == 6
    assert "Grad-CAM of the label-free score" in pictures.caption
    assert "red 2.5 times the average pixel" in pictures.caption


def test_several_kinds_have_rows_one_after_the_other_of_those_that_have_them(
    networks, images, capsys
) -> None:
    pictures = draw(networks, images, kind=("norm", "t-stream", "class"), class_name="dog")
    assert pictures.rows == ["run norm", "other norm", "run t-stream", "other class"]
    assert "other has no T-stream, and no row" in capsys.readouterr().err
    assert "attention of block 2 of 2, mean over 4 heads" in pictures.caption
    height = Image.open(BytesIO(pictures.sheet)).height
    assert height == 5 * PITCH + LEGEND_HEIGHT
    other = networks["other"]
    maps = class_map(other.encoder, pixels_of(images), other.probe.weights[[1, 1]])
    want = np.asarray(overlay(centre_crop(images[0].image, CELL), maps[0])).astype(int)
    shown = cell_of(pictures, 4, 0)
    assert np.abs(shown[:14] - want[:14]).max() <= 1  # above the word
    assert (shown[-14:, :3] == 255).all()


def test_block_head_query_stage_and_scale_are_those_that_were_asked_for(networks, images) -> None:
    pictures = draw(
        networks, images, kind=("t-stream",), block=1, head=3, query=(0.9, 0.1), scale=4
    )
    run = networks["run"]
    cam = transformer_map(
        run.encoder, run.transformer, pixels_of(images), Attending(1, 3, (0.9, 0.1))
    )[0]
    want = np.asarray(overlay(centre_crop(images[0].image, CELL), cam, scale=4)).astype(int)
    assert np.abs(cell_of(pictures, 1, 0) - want).max() <= 1
    assert "block 1 of 2, head 3, from position 0.9, 0.1" in pictures.caption
    assert "red 4 times" in pictures.caption
    assert "layer2" in draw(networks, images, kind=("eigen-cam",), stage="layer2").caption


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": ("grad-cam", "lime")}, "wanted kinds of maps among grad-cam, .*got 'lime'"),
        ({"kind": ("class",), "class_name": "cow"}, "wanted a class among cat, dog, got 'cow'"),
        ({"kind": ("t-stream",), "query": (0.5,)}, r"wanted a place such as 0\.5,0\.5, got 0\.5"),
        ({"stage": "layer7"}, "no stage 'layer7'"),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(networks, images, settings, message) -> None:
    with pytest.raises(CareError, match=message):
        draw(networks, images, **settings)


def test_where_no_encoder_has_what_a_kind_is_of_it_says_what_to_do(networks, images) -> None:
    bare = {"other": Network(networks["other"].encoder)}
    with pytest.raises(CareError, match="give --train SET"):
        draw(bare, images, kind=("class",))
    with pytest.raises(CareError, match="none of these encoders has a T-stream; wanted a run"):
        draw(bare, images, kind=("t-stream",))


def test_of_four_bands_the_first_three_are_to_be_seen(networks, make_image) -> None:
    image = make_image(0, (50, 40))
    infrared = Image.new("L", image.size, 90)
    banded = Image.merge("RGBX", (*image.split(), infrared))
    torch.manual_seed(0)
    network = {"bands": Network(build_encoder("resnet18-small-half-rgbn").eval())}
    pictures = draw(network, [NamedImage("a.png", banded)])
    assert np.array_equal(cell_of(pictures, 0, 0), np.asarray(centre_crop(image, CELL)))
    with pytest.raises(CareError, match="takes images of 4 bands, got 3"):
        draw(network, [NamedImage("a.png", image)])
