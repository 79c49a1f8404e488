from io import BytesIO
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms
from care import resnet18
from care.evaluate.images import centre_crop
from care.show import attention_map, attention_share, attention_shares, overlay, sheet


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet18(small=True, half=True).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def shown(cam, size):
    """A map at the images' size, its mean 1."""
    cam = F.interpolate(cam.clamp_min(0)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return torch.stack([of_image / of_image.mean() for of_image in cam])


def test_at_the_last_stage_it_is_the_features_times_the_map(encoder, images):
    """∂(½‖f‖²)/∂h is f over the number of pixels, with f the mean of h: Grad-CAM is Σ f·h."""
    cam = attention_map(encoder, images)
    with torch.no_grad():
        h = encoder.maps(images)["layer4"]
        f = encoder(images).features
    torch.testing.assert_close(
        cam, shown(torch.einsum("bc,bchw->bhw", f, h), (48, 64)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("stage", ["layer1", "layer2", "layer3"])
def test_at_other_stages_it_is_grad_cam_by_hooks(encoder, images, stage):
    kept = {}

    def keep(module, args, out):
        kept["map"] = out
        out.register_hook(lambda gradient: kept.update(gradient=gradient))

    handle = getattr(encoder, stage).register_forward_hook(keep)
    score = sum(f.dot(f) / 2 for f in encoder(images).features)
    score.backward()
    handle.remove()
    encoder.zero_grad()
    want = torch.zeros_like(kept["map"][:, 0])
    for channel in range(kept["map"].shape[1]):
        weight = kept["gradient"][:, channel].mean((1, 2))
        want += weight[:, None, None] * kept["map"][:, channel].detach()
    torch.testing.assert_close(
        attention_map(encoder, images, stage=stage), shown(want, (48, 64)), rtol=1e-3, atol=1e-4
    )


def test_a_map_has_the_images_size_and_mean_1(encoder, images):
    cam = attention_map(encoder, images)
    assert cam.shape == (3, 48, 64)
    assert cam.min() >= 0
    torch.testing.assert_close(cam.mean((1, 2)), torch.ones(3))
    assert cam.std() > 0.01


def test_each_images_map_is_its_own(encoder, images):
    torch.testing.assert_close(
        attention_map(encoder, images)[1:2],
        attention_map(encoder, images[1:2]),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_traces(encoder, images, training):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():  # it needs gradients and turns them on for itself
        cam = attention_map(encoder.train(training), images)
    assert encoder.training == training
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert not images.requires_grad
    assert not cam.requires_grad


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
    assert picture.size == (84 + 3 * 44, 3 * 44)
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


def test_a_sheet_of_wide_crops_has_wide_pictures(encoder, make_image):
    data = sheet([make_image(0, (90, 50))], {"wide": encoder}, size="32x64", cell=40)
    picture = Image.open(BytesIO(data)).convert("RGB")
    assert picture.size == (84 + 84, 2 * 44)
    shown = np.asarray(picture.crop((84, 0, 164, 40)))
    assert np.array_equal(shown, np.asarray(centre_crop(make_image(0, (90, 50)), "40x80")))


def test_the_share_inside_a_mask_of_wide_crops(encoder, make_image):
    mask = np.zeros((40, 80), bool)
    mask[:, :40] = True
    (share,) = attention_shares(encoder, [make_image(0, (80, 40))], [mask], size="16x32").area
    assert float(share) == pytest.approx(0.5, abs=0.03)


def test_the_share_inside_masks_is_a_plain_sum_over_pixels(encoder, make_image):
    size, sizes = 32, [(60, 40), (40, 40), (40, 50)]
    photos = [make_image(n, size) for n, size in enumerate(sizes)]
    masks = [np.random.default_rng(n).random(size[::-1]) < 0.3 for n, size in enumerate(sizes)]
    prepare = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    shares, areas = [], []
    for photo, mask in zip(photos, masks, strict=True):
        cam = attention_map(encoder, prepare(centre_crop(photo, size))[None])[0].numpy()
        gray = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
        weight = np.asarray(centre_crop(gray, size)) / 255
        shares.append(sum(c * w for c, w in zip(cam.flat, weight.flat, strict=True)) / cam.sum())
        areas.append(weight.mean())
    share = attention_share(encoder, photos, masks, size=size)
    assert share.inside == pytest.approx(100 * np.mean(shares), rel=1e-4)
    assert share.area == pytest.approx(100 * np.mean(areas), rel=1e-4)
    by_image = attention_shares(encoder, photos, masks, size=size)
    assert by_image.inside.tolist() == pytest.approx(shares, rel=1e-4)
    assert by_image.area.tolist() == pytest.approx(areas, rel=1e-4)


def test_a_mask_of_everything_holds_all_and_of_nothing_none(encoder, make_image):
    photos = [make_image(n) for n in range(3)]
    everything, nothing = [np.ones((40, 40), bool)] * 3, [np.zeros((40, 40), bool)] * 3
    share = attention_share(encoder, photos, everything, size=32)
    assert share == pytest.approx((100, 100), rel=1e-5)
    assert attention_share(encoder, photos, nothing, size=32) == (0, 0)
