from math import exp, log
import pytest
import torch
from torch import nn
from care import (
    BYOL,
    BarlowTwins,
    CareError,
    CStream,
    MoCoV1,
    MoCoV2,
    MoCoV3,
    MomentumPair,
    Siamese,
    SimCLR,
    SimSiam,
    SwAV,
    Transformer,
    TStream,
    care_loss,
    resnet18,
    streams_for,
)

SMALL = [
    BYOL(hidden=16, dim=8),
    SimSiam(hidden=16, dim=8, bottleneck=4),
    SimCLR(hidden=16, dim=8),
    MoCoV3(hidden=16, dim=8),
    BarlowTwins(hidden=16, dim=8),
    MoCoV2(hidden=16, dim=8, queue=16),
    MoCoV1(hidden=16, dim=8, queue=16),
    SwAV(hidden=16, dim=8, prototypes=6),
]
ids = [type(objective).__name__ for objective in SMALL]


def embeddings(seed, b=5, d=7):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, d, generator=generator, dtype=torch.float64) * 3 for _ in range(2))


def cos(x, y):
    return float((x * y).sum() / ((x * x).sum() * (y * y).sum()) ** 0.5)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def naive_byol(_, q, k):
    return mean(2 - 2 * cos(q[0][i], k[1][i]) + 2 - 2 * cos(q[1][i], k[0][i]) for i in range(5))


def naive_simsiam(_, p, z):
    return mean(-cos(p[0][i], z[1][i]) / 2 - cos(p[1][i], z[0][i]) / 2 for i in range(5))


def naive_simclr(objective, z, _):
    views = [*z[0], *z[1]]
    terms = []
    for i, x in enumerate(views):
        others = sum(exp(cos(x, y) / objective.temperature) for j, y in enumerate(views) if j != i)
        terms.append(-log(exp(cos(x, views[(i + 5) % 10]) / objective.temperature) / others))
    return mean(terms)


def naive_moco(objective, q, k):
    tau = objective.temperature

    def one(q, k):
        return mean(
            -log(exp(cos(q[i], k[i]) / tau) / sum(exp(cos(q[i], k[j]) / tau) for j in range(5)))
            for i in range(5)
        )

    return 2 * tau * (one(q[0], k[1]) + one(q[1], k[0]))


def naive_barlow(objective, z, _):
    total = 0
    for i in range(7):
        for j in range(7):
            a, b = z[0][:, i] - z[0][:, i].mean(), z[1][:, j] - z[1][:, j].mean()
            variances = (a.square().mean() + 1e-5) * (b.square().mean() + 1e-5)
            c = float((a * b).mean() / variances**0.5)
            total += (1 - c) ** 2 if i == j else objective.redundancy * c**2
    return total


CASES = [
    (BYOL(), naive_byol),
    (SimSiam(), naive_simsiam),
    (SimCLR(), naive_simclr),
    (SimCLR(temperature=0.5), naive_simclr),
    (MoCoV3(), naive_moco),
    (MoCoV3(temperature=0.2), naive_moco),
    (BarlowTwins(), naive_barlow),
    (BarlowTwins(redundancy=1), naive_barlow),
]


@pytest.mark.parametrize(("objective", "naive"), CASES)
def test_the_loss_is_that_of_its_paper(objective, naive):
    online, target = embeddings(1), embeddings(2)
    want = naive(objective, online, target)
    assert float(objective.loss(online, target)) == pytest.approx(want, rel=1e-9)


WITH_STATE = [MoCoV2(dim=7, queue=10), SwAV(dim=7, prototypes=6)]


@pytest.mark.parametrize(
    "objective", [BYOL(), SimSiam(), SimCLR(), MoCoV3(), BarlowTwins(), *WITH_STATE], ids=repr
)
def test_targets_get_no_gradient_and_reduced_precision_is_computed_in_float32(objective):
    online, target = (
        tuple(x.float().bfloat16().requires_grad_() for x in embeddings(n)) for n in (1, 2)
    )
    loss = objective.criterion()(online, target)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in online)
    assert all(x.grad is None for x in target)


def described(head):
    """Its layers, with the widths of linear ones."""
    words = {nn.BatchNorm1d: "norm", nn.ReLU: "relu"}
    layers = []
    for layer in head.children():
        if isinstance(layer, nn.Linear):
            layers.append(f"{layer.in_features}→{layer.out_features}")
        else:
            layers.append(words[type(layer)])
    return " ".join(layers)


def test_the_heads_are_those_of_the_papers():
    with torch.device("meta"):
        two_layers = "2048→4096 norm relu 4096→256"
        assert described(BYOL().projector(2048)) == two_layers
        assert described(BYOL().predictor()) == "256→4096 norm relu 4096→256"
        three_layers = "2048→2048 norm relu 2048→2048 norm relu 2048→2048"
        assert described(SimSiam().projector(2048)) == f"{three_layers} norm"
        assert described(SimSiam().predictor()) == "2048→512 norm relu 512→2048"
        assert described(SimCLR().projector(2048)) == "2048→2048 norm relu 2048→128"
        assert described(MoCoV3().projector(2048)) == f"{two_layers} norm"
        assert described(MoCoV3().predictor()) == "256→4096 norm relu 4096→256"
        three_layers = "2048→8192 norm relu 8192→8192 norm relu 8192→8192"
        assert described(BarlowTwins().projector(2048)) == three_layers
        assert described(MoCoV2().projector(2048)) == "2048→2048 relu 2048→128"
        assert described(nn.Sequential(MoCoV1().projector(2048))) == "2048→128"
        assert described(SwAV().projector(2048)) == "2048→2048 norm relu 2048→128"
        assert not MoCoV3().projector(8)[-1].affine
        assert not SimSiam().projector(8)[-1].affine
        assert isinstance(SimCLR().predictor(), nn.Identity)
        assert isinstance(BarlowTwins().predictor(), nn.Identity)


def views():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 3, 32, 32, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("objective", SMALL, ids=ids)
def test_the_t_stream_and_its_supervision_work_on_every_c_stream(objective):
    c, t = streams_for("resnet18-small-half", size=32, blocks=1, objective=objective)
    c_out = c(*views())
    loss = care_loss(c_out, t(c_out.maps), attention_weight=100)
    assert float(loss.cnn.detach()) == float(c.criterion(c_out.online, c_out.target).detach())
    assert loss.attention > 0
    loss.total.backward()
    trained = [*c.online_parameters(), *t.online_parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    torch.optim.SGD(trained, lr=0.1).step()
    networks = nn.ModuleList([c.backbone, c.projector, c.predictor])
    before = [p.clone() for p in networks.parameters()]
    c.update(0.9)
    t.update(0.9)
    moved = [not torch.equal(a, b) for a, b in zip(before, networks.parameters(), strict=True)]
    assert any(moved) == (objective.pair is MomentumPair)  # only a momentum encoder follows


def test_without_momentum_the_target_is_the_online_network_computed_once():
    objective = SimSiam(hidden=16, dim=8, bottleneck=4)
    c, t = streams_for("resnet18-small-half", size=32, blocks=1, objective=objective)
    assert not any("target" in name for name in c.state_dict())
    out = c(*views())
    norm = c.backbone.online.bn1
    assert norm.num_batches_tracked == 2
    assert not any(x.requires_grad for x in (*out.target, *out.maps.target))
    for online, target in zip(out.maps.online, out.maps.target, strict=True):
        assert torch.equal(online, target)
    judged = c.eval()(*views())
    for online, target in zip(judged.online, judged.target, strict=True):
        assert torch.equal(online, c.predictor(target))
        assert not torch.equal(online, target)
    assert t(out.maps).target[0].shape == (4, 8)


def test_both_streams_can_be_siamese():
    objective = SimCLR(hidden=16, dim=8)
    c = CStream(Siamese(resnet18(small=True, half=True)), objective)
    t = TStream(Siamese(Transformer(128, 256, map_size=(4, 4), blocks=1)), objective)
    c_out = c(*views())
    t_out = t(c_out.maps)
    loss = care_loss(c_out, t_out)
    want = objective.loss(t_out.online, t_out.target)
    assert float(loss.transformer.detach()) == float(want.detach())
    loss.total.backward()
    c.update(0.5)


def test_embeddings_of_unequal_width_are_refused_with_advice():
    c, _ = streams_for("resnet18-small-half", size=32, blocks=1, objective=SimCLR(hidden=16, dim=8))
    t = TStream(MomentumPair(Transformer(128, 256, map_size=(4, 4), blocks=1)), BYOL(hidden=16))
    c_out = c(*views())
    with pytest.raises(CareError, match=r"one width, got 8 and 256; give both objectives one dim"):
        care_loss(c_out, t(c_out.maps))
