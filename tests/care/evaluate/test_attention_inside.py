"""The share of attention inside objects, beside a plain sum over pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from care import resnet18
from care.evaluate.attention_inside import attention_share, attention_shares
from care.evaluate.attention_maps import attention_map
from care.evaluate.images import centre_crop


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet18(small=True, half=True).eval()


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


def test_the_share_inside_a_mask_of_wide_crops(encoder, make_image):
    mask = np.zeros((40, 80), bool)
    mask[:, :40] = True
    (share,) = attention_shares(encoder, [make_image(0, (80, 40))], [mask], size="16x32").area
    assert float(share) == pytest.approx(0.5, abs=0.03)
