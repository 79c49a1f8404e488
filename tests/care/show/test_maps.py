from io import BytesIO
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms
from care import build_encoder, resnet18, streams_for
from care.evaluate.images import centre_crop
from care.show import attention_map, overlay, sheet, transformer_map
from care.show.map_sheet import LEGEND_HEIGHT, coloured, draw_sheet


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet18(small=True, half=True).eval()


def test_an_overlay_goes_from_blue_at_0_to_red_at_its_scale():
    image = Image.fromarray(np.full((1, 5, 3), (100, 50, 200), dtype=np.uint8))
    cam = torch.tensor([[0.0, 1.5, 3, 10.5, -4.5]])
    (colours,) = np.asarray(overlay(image, cam, scale=3)).tolist()
    ends = np.array([(20, 20, 80), (60, 190, 120), (220, 30, 30), (220, 30, 30), (20, 20, 80)])
    assert colours == ((ends + np.array((100, 50, 200))) // 2).tolist()
    between = np.asarray(overlay(image, torch.full((1, 5), 0.375), scale=3))[0, 0].tolist()
    assert between == [(25 + 100) // 2, (65 + 50) // 2, (140 + 200) // 2]


def test_a_sheet_has_the_images_and_a_row_for_each_encoder(encoder, make_image):
    pictures = [make_image(n, (60 + 10 * n, 50)) for n in range(3)]
    torch.manual_seed(1)
    other = resnet18(small=True, half=True)
    data = sheet(pictures, {"first": encoder, "second": other}, size=32, cell=40)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    picture = Image.open(BytesIO(data)).convert("RGB")
    assert picture.size == (84 + 2 * 140, 3 * 44 + LEGEND_HEIGHT)
    transform = transforms.Compose([transforms.Resize(37), transforms.CenterCrop(32)])
    crops = [transform(image) for image in pictures]
    normal = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    batch = torch.stack([normal(crop) for crop in crops])
    maps = [attention_map(network, batch) for network in (encoder, other)]
    assert not torch.equal(*maps)
    larger = transforms.Compose([transforms.Resize(46), transforms.CenterCrop(40)])
    shown = [larger(image) for image in pictures]
    maps = [F.interpolate(cams[None], (40, 40), mode="bilinear")[0] for cams in maps]
    rows = [shown]
    for cams in maps:
        rows.append([overlay(image, cam) for image, cam in zip(shown, cams, strict=True)])
    for y, row in enumerate(rows):
        for x, part in enumerate(row):
            cell = picture.crop((84 + 44 * x, 44 * y, 84 + 44 * x + 40, 44 * y + 40))
            assert np.abs(np.asarray(cell).astype(int) - np.asarray(part)).max() <= 1
        label = np.asarray(picture.crop((0, 44 * y, 84, 44 * y + 40)))
        assert label.min() < 100 < label.max()


def test_a_sheet_of_four_bands_shows_the_first_three(make_image):
    colours = make_image(0, (60, 60))
    image = Image.merge("RGBX", [*colours.split(), colours.getchannel(0)])
    torch.manual_seed(0)
    data = sheet([image], {"four": build_encoder("resnet18-small-half-rgbn")}, size=32, cell=40)
    picture = Image.open(BytesIO(data)).convert("RGB")
    shown = np.asarray(picture.crop((84, 0, 124, 40)))
    assert np.array_equal(shown, np.asarray(centre_crop(colours, 40)))


def test_a_sheet_of_wide_crops_has_wide_pictures(encoder, make_image):
    data = sheet([make_image(0, (90, 50))], {"wide": encoder}, size="32x64", cell=40)
    picture = Image.open(BytesIO(data)).convert("RGB")
    assert picture.height == 2 * 44 + LEGEND_HEIGHT
    shown = np.asarray(picture.crop((84, 0, 164, 40)))
    assert np.array_equal(shown, np.asarray(centre_crop(make_image(0, (90, 50)), "40x80")))


def test_a_sheet_has_a_row_for_what_a_t_stream_attends_to(make_image):
    c, t = streams_for("resnet18-small-half", size=32, blocks=2)
    encoder, transformer = c.backbone.online.eval(), t.backbone.online.eval()
    pictures = [make_image(n) for n in range(2)]
    both = sheet(pictures, {"mine": encoder}, size=32, cell=32, transformers={"mine": transformer})
    picture = Image.open(BytesIO(both))
    assert picture.height == 3 * 36 + LEGEND_HEIGHT
    alone = Image.open(BytesIO(sheet(pictures, {"mine": encoder}, size=32, cell=32)))
    width = 84 + 2 * 36
    same = (0, 0, width, 72)
    assert np.array_equal(picture.crop(same), alone.crop(same))
    batch = normal_batch(pictures, 32)
    cam = transformer_map(encoder, transformer, batch)[1]
    cropped = picture.crop((84 + 36, 72, 84 + 68, 104))
    image = picture.crop((84 + 36, 0, 84 + 68, 32))
    assert np.abs(np.asarray(cropped).astype(int) - np.asarray(overlay(image, cam))).max() <= 1


def normal_batch(pictures, size):
    normal = transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return torch.stack([normal(image) for image in pictures])


def test_a_long_name_is_broken_at_its_marks_and_never_reaches_the_pictures():
    white = [Image.new("RGB", (20, 20), "white")] * 2
    name = "runs/2026-11-30/imagenet-100/resnet50-small-batch-2048-epochs-800/checkpoint:target"
    data = draw_sheet({"image": white, name: white})
    picture = np.asarray(Image.open(BytesIO(data)).convert("L"))
    margin = picture.shape[1] - 2 * 140
    assert 84 < margin <= 260
    assert picture[24:44, margin:].min() == 255
    assert picture[:44, :margin].min() < 100


def test_a_caption_is_cut_to_its_picture_and_the_legend_has_all_colours():
    black = [Image.new("RGB", (60, 40), "black")] * 2
    data = draw_sheet({"row": black}, captions={"row": ["cat", "a very long class name indeed"]})
    picture = np.asarray(Image.open(BytesIO(data)))
    assert (picture[20:40, 84 + 60 : 84 + 64] == 255).all()  # the gap between both
    assert (picture[:24, 84:144] == 0).all()
    assert (picture[24:40, 84:144].max(2) == 255).any()
    bar = picture[44 + 12, 84 + 14 : 84 + 14 + 140]
    np.testing.assert_array_equal(bar, coloured(np.linspace(0, 1, 140, dtype="f4")).astype("u1"))
