"""Anchors, pooling and both stages' losses, by their formulas."""

import numpy as np
import pytest
import torch
from small_detectors import TARGETS, images, make
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align
from care.evaluate.detector_parts import RPN, Anchors, RoIAlign


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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
