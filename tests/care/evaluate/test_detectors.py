import copy
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align
from care import CareError, resnet18
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.detector_parts import RPN, Anchors, RoIAlign
from care.tapped import TappedEncoder


def make(head, *, small=True, half=True, classes=3, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = changes.pop("encoder", None) or resnet18(small=small, half=half).eval()
        shape = {"proposals": 16, "anchor_scale": 4, "channels": 8, "hidden": 16} | changes
        return Detector(encoder, classes, DetectorShape(head=head, **shape))


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def target(*rows, size, mask=False):
    """Boxes (label, left, top, right, bottom); the mask is the left half of the box."""
    corners = torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(rows), *size, dtype=torch.uint8)
    for of, (_, left, top, right, bottom) in zip(masks, rows, strict=True):
        of[top:bottom, left : (left + right) // 2] = 1
    labels = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    return {"boxes": corners, "labels": labels} | ({"masks": masks} if mask else {})


TARGETS = [
    target((1, 4, 4, 24, 28), (3, 30, 10, 60, 40), size=(48, 64), mask=True),
    target(size=(40, 40), mask=True),
]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# anchors


def test_anchors_are_those_of_the_formula_and_not_rounded():
    sizes, ratios = ((10.0, 25.0), (31.0,)), ((0.5, 1.0, 2.0),) * 2
    maps = [
        torch.zeros(2, 1, 4, 6, dtype=torch.bfloat16),
        torch.zeros(2, 1, 2, 3, dtype=torch.bfloat16),
    ]
    found = Anchors(sizes, ratios)(ImageList(torch.zeros(2, 3, 32, 48), [(32, 48)] * 2), maps)
    wanted = []
    for of_level, stride, (rows, columns) in zip(sizes, (8, 16), ((4, 6), (2, 3)), strict=True):
        for y in range(rows):
            for x in range(columns):
                for ratio in (0.5, 1, 2):
                    for side in of_level:
                        w, h = side / ratio**0.5, side * ratio**0.5
                        wanted.append(
                            [
                                stride * x - w / 2,
                                stride * y - h / 2,
                                stride * x + w / 2,
                                stride * y + h / 2,
                            ]
                        )
    assert len(found) == 2
    for of_image in found:
        assert of_image.dtype == torch.float32
        torch.testing.assert_close(of_image, torch.tensor(wanted))
    rounded = AnchorGenerator(sizes, ratios)(
        ImageList(torch.zeros(2, 3, 32, 48), [(32, 48)] * 2), [x.float() for x in maps]
    )
    assert 0.1 < (rounded[0] - found[0]).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("head", "small", "scale", "sizes"),
    [
        ("c4", False, 8, ((32, 64, 128, 256, 512),)),
        ("c4", True, 3, ((12, 24, 48, 96, 192),)),
        ("fpn", False, 8, ((32,), (64,), (128,), (256,), (512,))),
        ("fpn", True, 3, ((12,), (24,), (48,), (96,))),
    ],
)
def test_anchors_and_maps_by_head_and_stem(head, small, scale, sizes):
    model = make(head, small=small, anchor_scale=scale).eval()
    assert model.rpn.anchor_generator.sizes == sizes
    assert set(model.rpn.anchor_generator.aspect_ratios) == {(0.5, 1.0, 2.0)}
    wanted = (
        {"layer2": 4, "layer3": 8, "layer4": 16}
        if small
        else {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    )
    assert model.strides == (wanted if head == "fpn" else {"layer3": wanted["layer3"]})
    seen = []
    model.rpn.head.register_forward_hook(lambda _, maps, out: seen.append((maps[0], out)))
    with torch.no_grad():
        model(images((60, 150)))
    (maps, (scores, _)), padded = (
        seen[0],
        {("c4", False): (64, 160), ("c4", True): (64, 152)}.get((head, small), (64, 160)),
    )
    padded = (64, 192) if (head, small) == ("fpn", False) else padded
    strides = [*model.strides.values(), *([model.multiple] if head == "fpn" else [])]
    assert [tuple(x.shape[2:]) for x in maps] == [
        (padded[0] // stride, padded[1] // stride) for stride in strides
    ]
    assert [x.shape[1] for x in scores] == [3 * len(of_level) for of_level in sizes]


# pooling


def test_boxes_are_pooled_aligned_from_the_level_of_their_size():
    generator, strides = torch.Generator().manual_seed(0), {"b": 4, "c": 8, "d": 16, "e": 32}
    maps = {
        name: torch.rand(2, 3, 512 // s, 640 // s, generator=generator)
        for name, s in strides.items()
    } | {"pool": torch.zeros(1)}
    sides = [5, 55.9, 56, 111, 112, 130, 223.9, 224, 300, 447, 448, 500]
    boxes = [
        torch.tensor(
            [[x, 1.3 * n, x + side * 0.8, 1.3 * n + side / 0.8] for n, side in enumerate(sides)]
        )
        for x in (3.7, 40.2)
    ]
    with torch.no_grad():
        found = RoIAlign(strides, 7)(maps, boxes)
    row, used = 0, set()
    for number, of_image in enumerate(boxes):
        for box in of_image:
            root = float((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
            level = min(max(int(np.floor(4 + np.log2(root / 224) + 1e-6)), 2), 5)
            name = {2: "b", 3: "c", 4: "d", 5: "e"}[level]
            used.add(name)
            wanted = roi_align(
                maps[name][number : number + 1], [box[None]], 7, 1 / 2**level, -1, aligned=True
            )
            torch.testing.assert_close(found[row], wanted[0], rtol=1e-4, atol=1e-5)
            row += 1
    assert (row, used) == (24, {"b", "c", "d", "e"})
    assert RoIAlign(strides, 7)(maps, [torch.zeros(0, 4)] * 2).shape == (0, 3, 7, 7)


def test_one_level_takes_all_boxes():
    maps, boxes = (
        {"d": torch.rand(1, 3, 32, 40)},
        [torch.tensor([[8.0, 8, 16, 16], [10, 10, 500, 500]])],
    )
    wanted = roi_align(maps["d"], boxes, 14, 1 / 16, 0, aligned=True)
    assert torch.equal(RoIAlign({"d": 16}, 14)(maps, boxes), wanted)
    assert not torch.allclose(wanted, roi_align(maps["d"], boxes, 14, 1 / 16, 0), atol=0.02)


# losses


def test_the_first_stage_has_l1_over_the_anchors_that_are_wanted(monkeypatch):
    rpn = make("c4").rpn
    generator = torch.Generator().manual_seed(0)
    labels = [torch.randint(-1, 2, (30,), generator=generator).float() for _ in range(2)]
    scores, deltas, goals = (torch.randn(60, n, generator=generator) for n in (1, 4, 4))
    found = rpn.compute_loss(scores, deltas, labels, [*goals.split(30)])
    entropy = distance = 0.0
    for score, delta, goal, label in zip(
        scores[:, 0].tolist(), deltas, goals, torch.cat(labels).tolist(), strict=True
    ):
        if label >= 0:
            entropy += np.log1p(np.exp(-score if label else score))
        if label == 1:
            distance += float((delta - goal).abs().sum())
    assert [float(loss) for loss in found] == pytest.approx(
        [entropy / 512, distance / 512], rel=1e-5
    )
    assert isinstance(rpn, RPN)


def spied(model, monkeypatch):
    """What the second stage of a training step computes with."""
    kept = {}
    sample, predict = model.heads.select_training_samples, model.heads.box_predictor.forward
    monkeypatch.setattr(
        model.heads,
        "select_training_samples",
        lambda *args: kept.setdefault("samples", sample(*args)),
    )
    monkeypatch.setattr(
        model.heads.box_predictor, "forward", lambda x: kept.setdefault("out", predict(x))
    )
    return kept


@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_the_second_stage_has_l1_over_the_sampled_boxes(head, monkeypatch):
    model = make(head).train()
    kept = spied(model, monkeypatch)
    losses = {
        name: loss.detach() for name, loss in model(images((48, 64), (40, 40)), TARGETS).items()
    }
    logits, deltas = (x.detach() for x in kept["out"])
    _, _, labels, goals = kept["samples"]
    labels, goals = torch.cat(labels), torch.cat(goals)
    assert len(labels) == 2 * 8  # half the proposals of both images
    assert 0 < (labels > 0).sum() <= 2  # a quarter of 8
    entropy = sum(
        float(torch.logsumexp(row, 0) - row[label])
        for row, label in zip(logits, labels, strict=True)
    )
    distance = sum(
        float((row[4 * label : 4 * label + 4] - goal).abs().sum())
        for row, label, goal in zip(deltas, labels, goals, strict=True)
        if label
    )
    assert losses.keys() == {"classifier", "box_reg", "objectness", "rpn_box_reg"}
    assert float(losses["classifier"]) == pytest.approx(entropy / 16, rel=1e-4)
    assert float(losses["box_reg"]) == pytest.approx(distance / 16, rel=1e-4)


@pytest.mark.parametrize(("head", "side"), [("c4", 14), ("fpn", 28)])
def test_masks_learn_the_aligned_crop_of_their_own_class(head, side, monkeypatch):
    model = make(head, mask=True).train()
    kept, out = spied(model, monkeypatch), []
    model.heads.mask_predictor.register_forward_hook(lambda *args: out.append(args[-1]))
    losses = {
        name: loss.detach() for name, loss in model(images((48, 64), (40, 40)), TARGETS).items()
    }
    boxes, matched, labels, _ = kept["samples"]
    positive = torch.where(labels[0] > 0)[0]
    assert len(positive) > 0 == (labels[1] > 0).sum()
    assert out[0].shape == (len(positive), 4, side, side)
    total = 0.0
    for logits, n in zip(out[0], positive, strict=True):
        shape = TARGETS[0]["masks"][matched[0][n]][None, None].float()
        crop = roi_align(shape, [boxes[0][n][None]], side, aligned=True)[0, 0]
        total += float(F.binary_cross_entropy_with_logits(logits[labels[0][n]], crop))
    assert float(losses["mask"]) == pytest.approx(total / len(positive), rel=1e-4)
    unaligned = project_masks_on_boxes(
        TARGETS[0]["masks"], boxes[0][positive], matched[0][positive], side
    )
    assert (unaligned[-1] - crop).abs().max() > 0.01


# the C4 form


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


# the pyramid


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


# settings


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


# a pass


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
