"""Minutes of training on real images (nox -s slow)."""

import json
import pytest
import torch
import shards
from care import BYOL, BarlowTwins, MoCoV3, SimCLR, SimSiam, streams_for
from care.evaluate import knn
from care.train import SGD, VIEWS, pretrain

pytestmark = pytest.mark.slow
STEPS, SIZE = 300, 48

# widths and temperatures for batches of 32 of small images, the rates found by trying two or three
OBJECTIVES = {
    "BYOL": (BYOL(hidden=1024), 0.4),
    "SimSiam": (SimSiam(hidden=512, dim=512, bottleneck=128), 0.2),
    "SimCLR": (SimCLR(hidden=512, dim=128), 0.2),
    "MoCoV3": (MoCoV3(hidden=1024, temperature=0.2), 0.4),
    "BarlowTwins": (BarlowTwins(hidden=1024, dim=1024), 0.05),
}


@pytest.fixture(scope="module")
def photographs(unpacked, tmp_path_factory):
    root = unpacked("clothing10-cc0.tar")
    sets = tmp_path_factory.mktemp("sets")
    for part in ("train", "val"):
        shards.build(next(root.rglob(part)), sets / part)
    return shards.open(sets / "train"), shards.open(sets / "val")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_both_streams_on_photographs_without_collapse(
    name, photographs, tmp_path, capsys
):
    train, val = photographs
    objective, lr = OBJECTIVES[name]
    c, t = streams_for("resnet18-small-half", size=SIZE, blocks=2, objective=objective)

    def judge():
        return knn(c.backbone.online, train, val, size=SIZE).measures["top1"]

    before = judge()
    torch.set_num_threads(2)
    views = tuple(
        view._replace(scale=(0.2, 1.0), blur=(0.1, 0.5), jitter=(0.4, 0.4, 0.6, 0.3), gray_p=0.4)
        for view in VIEWS
    )
    optimizer = SGD(lr=lr, warmup=30)
    pretrain(
        train,
        tmp_path,
        c,
        t,
        size=SIZE,
        batch_size=32,
        steps=STEPS,
        optimizer=optimizer,
        views=views,
    )
    after = judge()
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    first, last = rows[:20], rows[-20:]
    mean = {
        key: [sum(row[key] for row in part) / 20 for part in (first, last)]
        for key in ("cnn", "attention", "spread")
    }
    with capsys.disabled():
        print(
            f"\n{name}: kNN {before:.1f} → {after:.1f} %, "
            + ", ".join(f"{k} {a:.4f} → {b:.4f}" for k, (a, b) in mean.items())
        )
    assert mean["cnn"][1] < mean["cnn"][0]
    assert mean["spread"][1] > 0.3  # collapsed: 0, independent directions: 1
    assert after > 15  # ten classes
