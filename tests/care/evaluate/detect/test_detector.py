"""Detectors as a whole: the two forms, what is frozen, a pass."""

import copy
import pytest
import torch
from small_detectors import TARGETS, images, make, target
from torch import nn
from care import CareError, resnet18
from care.tapped import TappedEncoder


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_c4_has_the_last_stage_and_one_more_norm_as_its_head():
    encoder = resnet18(small=True, half=True).eval()
    before = copy.deepcopy(encoder.state_dict())
    model = make("c4", encoder=encoder, mask=True)
    last, norm = model.heads.box_head
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    for name, value in last.state_dict().items():
        assert torch.equal(value, before[f"layer4.{name}"])
        assert (
            value.numel() == 0
            or value.data_ptr() != encoder.state_dict()[f"layer4.{name}"].data_ptr()
        )
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_features == encoder.features == 256
    assert isinstance(model.body.layer4, nn.Identity)
    pooled = torch.randn(5, 128, 14, 14)
    nn.init.constant_(norm.bias, -1)
    features = model.heads.box_head.eval()(pooled)
    assert features.shape == (5, 256, 7, 7)
    torch.testing.assert_close(
        features, last(pooled) / (1 + norm.eps) ** 0.5 - 1
    )  # nothing after the norm
    logits, deltas = model.heads.box_predictor(features)
    torch.testing.assert_close(
        logits, model.heads.box_predictor[1].cls_score(features.mean((2, 3)))
    )
    assert (logits.shape, deltas.shape) == ((5, 4), (5, 16))
    names = [name for name, _ in model.heads.mask_predictor.named_children()]
    assert names == ["conv5_mask", "relu", "mask_fcn_logits"]  # no convolution before
    assert model.heads.mask_predictor(features).shape == (5, 4, 14, 14)


@pytest.mark.parametrize("small", [True, False])
def test_the_last_stage_runs_once_a_step_also_with_masks(small):
    model, calls = make("c4", small=small, mask=True).train(), []
    model.heads.box_head.register_forward_hook(lambda _, x, out: calls.append((x[0], out)))
    model.heads.mask_predictor.register_forward_hook(lambda _, x, out: calls.append((x[0], out)))
    model(images((48, 64), (40, 40)), TARGETS)
    (pooled, shared), (given, _) = calls
    assert pooled.shape[2:] == (14, 14)
    assert shared.shape == (16, 256, 7, 7)
    rows = [int((shared == row).flatten(1).all(1).nonzero()[0]) for row in given]
    assert len(rows) == len(set(rows)) > 0
    calls.clear()
    with torch.no_grad():
        model.eval()(images((48, 64)))
    assert len(calls) == 3  # of the proposals, then of what they became, for masks


def test_c4_of_what_is_no_resnet_is_refused():
    with pytest.raises(
        CareError, match=r"tiny has no stages to cut into the C4 form; use head='fpn'"
    ):
        make("c4", encoder=tiny())


def tiny():
    """With a hidden layer between the maps and the features."""
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in ((3, 4), (4, 6), (6, 8), (8, 12))
    ]
    layers = [
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(),
        nn.Linear(5, 7),
    ]
    return TappedEncoder(nn.Sequential(*layers), "2", name="tiny")


@pytest.mark.parametrize(("head", "encoder"), [("c4", None), ("fpn", None), ("fpn", tiny)])
def test_nothing_is_frozen_that_the_maps_need(head, encoder):
    given = encoder().requires_grad_(False) if encoder else None
    model = make(head, mask=True, encoder=given).train()
    assert given is None or not any(p.requires_grad for p in given.parameters())
    losses = model(images((48, 64), (40, 40)), TARGETS)
    sum(losses.values()).backward()
    # without a gradient, processes that train together would wait for it
    assert all(p.requires_grad == (p.grad is not None) for p in model.parameters())
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == (["body.model.6.weight", "body.model.6.bias"] if encoder else [])


def test_the_pyramid_has_norms_of_its_own():
    encoder, model = resnet18(small=True, half=True), make("fpn")
    norms = [layer for layer in model.neck.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 2 * 3
    others = sum(isinstance(layer, nn.BatchNorm2d) for layer in encoder.modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == others + 6
    assert all(layer.bias is None for layer in model.neck.modules() if isinstance(layer, nn.Conv2d))
    assert make("fpn", mask=True).heads.mask_head(torch.rand(2, 8, 14, 14)).shape == (2, 8, 14, 14)
    assert (
        sum(
            isinstance(layer, nn.Conv2d)
            for layer in make("fpn", mask=True).heads.mask_head.modules()
        )
        == 4
    )


@pytest.mark.parametrize(
    ("head", "training", "test"), [("c4", (600, 100), (300, 50)), ("fpn", (100, 50), (50, 50))]
)
def test_proposals_scale_what_both_stages_see(head, training, test):
    model = make(head, proposals=50, hidden=24, classes=5)
    for mode, wanted in ((True, training), (False, test)):
        model.train(mode)
        assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n()) == wanted
    assert (
        model.rpn.fg_bg_sampler.batch_size_per_image,
        model.rpn.fg_bg_sampler.positive_fraction,
    ) == (256, 0.5)
    heads = model.heads
    assert (heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction) == (
        25,
        0.25,
    )
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
    assert heads.box_roi_pool.side == {"c4": 14, "fpn": 7}[head]
    predictor = heads.box_predictor[1] if head == "c4" else heads.box_predictor
    assert predictor.cls_score.weight.shape == (6, {"c4": 256, "fpn": 24}[head])
    assert float(predictor.cls_score.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    assert float(predictor.bbox_pred.weight.detach().std()) == pytest.approx(0.001, rel=0.2)
    assert make(head, proposals=1000).heads.fg_bg_sampler.batch_size_per_image == 500
    assert make(head, proposals=2000).heads.fg_bg_sampler.batch_size_per_image == 512


def test_images_are_normalised_and_padded_at_the_right_and_below():
    model, given = make("c4").eval(), images((30, 50), (44, 20))
    seen = []
    maps = model.body.maps
    model.body.maps = lambda x: (seen.append(x), maps(x))[1]
    with torch.no_grad():
        model(given)
    (batch,) = seen
    assert batch.shape == (2, 3, 48, 56)
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    for padded, image in zip(batch, given, strict=True):
        height, width = image.shape[1:]
        torch.testing.assert_close(padded[:, :height, :width], (image - mean) / std)
        assert padded[:, height:].abs().max() == padded[:, :, width:].abs().max() == 0


@pytest.mark.parametrize(("head", "side"), [("c4", 14), ("fpn", 28)])
def test_what_is_found_lies_in_its_image(head, side):
    model, given = make(head, mask=True).eval(), images((30, 50), (44, 20))
    model.heads.score_thresh = 0.2  # of 4 classes that look alike
    with torch.no_grad():
        found = model(given)
    assert len(found) == 2
    for one, image in zip(found, given, strict=True):
        count = len(one["boxes"])
        assert 0 < count <= 100
        assert {name: tuple(x.shape) for name, x in one.items()} == {
            "boxes": (count, 4),
            "scores": (count,),
            "labels": (count,),
            "masks": (count, side, side),
        }
        assert one["boxes"].min() >= 0
        assert (one["boxes"][:, 2].max(), one["boxes"][:, 3].max()) <= (
            image.shape[2],
            image.shape[1],
        )
        assert set(one["labels"].tolist()) <= {1, 2, 3}
        assert one["masks"].min() >= 0
        assert one["masks"].max() <= 1
    model.heads.score_thresh = 1.0
    with torch.no_grad():
        assert [len(one["masks"]) for one in model(given)] == [0, 0]


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_masks_are_those_of_the_class_and_the_box(head):
    model, given = make(head, mask=True).eval(), images((40, 64))
    nn.init.normal_(model.heads.mask_predictor.mask_fcn_logits.weight)
    model.heads.score_thresh = 0.2
    out = []
    model.heads.mask_predictor.register_forward_hook(lambda *args: out.append(args[-1]))
    with torch.no_grad():
        (found,) = model(given)
    for mask, label, logits in zip(found["masks"], found["labels"], out[0], strict=True):
        torch.testing.assert_close(mask, logits[label].sigmoid(), rtol=1e-6, atol=1e-6)
        assert (
            min(
                (mask - logits[other].sigmoid()).abs().max() for other in range(4) if other != label
            )
            > 1e-3
        )


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_half_precision_is_that_of_the_networks_alone(head):
    model, given = make(head, mask=True).train(), images((48, 64), (40, 40))
    kept = []
    model.heads.box_roi_pool.register_forward_hook(lambda _, x, out: kept.append((x[1], out)))
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(copy.deepcopy(model)(given, TARGETS))
    assert all(loss.dtype == torch.float32 for loss in results[1].values())
    boxes, pooled = kept[-1]
    assert all(of_image.dtype == torch.float32 for of_image in boxes)
    assert pooled.dtype == torch.bfloat16
    assert results[0]["objectness"].tolist() == pytest.approx(
        results[1]["objectness"].tolist(), rel=0.02
    )


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_a_batch_without_objects_is_learned_from(head):
    empty = [target(size=(40, 40), mask=True)] * 2
    losses = make(head, mask=True).train()(images((40, 40), (40, 40)), empty)
    sum(losses.values()).backward()
    assert losses["mask"] == losses["box_reg"] == losses["rpn_box_reg"] == 0
    assert losses["objectness"] > 0
    assert losses["classifier"] > 0
