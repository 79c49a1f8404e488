import math
import pytest
import torch
from jaxtyping import TypeCheckError
from care import CStreamOut, TStreamOut, attention_loss, care_loss, similarity_loss
from care.streams import Maps


def draw(seed, *, b=5, d=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (3 * torch.randn(b, d, generator=generator, dtype=torch.float64) + 1).to(dtype)
        for _ in range(2)
    )


def unit(vector):
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def cosine(a, b):
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def naive_similarity(online, target):
    """2 − 2·cos of one view's online and the other's target, summed over the views; the mean."""
    (q1, q2), (k1, k2) = ([x.tolist() for x in pair] for pair in (online, target))
    total = 0
    for n in range(len(q1)):
        total += 2 - 2 * cosine(q1[n], k2[n]) + 2 - 2 * cosine(q2[n], k1[n])
    return total / len(q1)


def naive_attention(c, t):
    """Mean squared difference of unit vectors over batch and channels, summed over the views."""
    total = 0
    for x, y in zip(c, t, strict=True):
        squares = []
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            squares += [(u - v) ** 2 for u, v in zip(unit(a), unit(b), strict=True)]
        total += sum(squares) / len(squares)
    return total


def outputs(*seeds, dtype=torch.float64):
    c_online, c_target, t_online, t_target = (draw(seed, dtype=dtype) for seed in seeds)
    empty = (torch.empty(0), torch.empty(0))
    return CStreamOut(c_online, c_target, Maps(empty, empty)), TStreamOut(t_online, t_target)


def test_similarity_is_equation_1_over_both_views():
    online, target = draw(0), draw(1)
    assert similarity_loss(online, target).item() == pytest.approx(
        naive_similarity(online, target), abs=1e-12
    )


def test_similarity_crosses_the_views_and_ranges_from_0_to_8():
    view1, view2 = draw(0)
    online = (view1, view2)
    crossed = similarity_loss(online, (5 * view2, 0.1 * view1))
    opposite = similarity_loss(online, (-view2, -view1))
    assert crossed.item() == pytest.approx(0, abs=1e-12)
    assert opposite.item() == pytest.approx(8, abs=1e-12)
    assert similarity_loss(online, online).item() > 1


def test_no_gradient_reaches_the_target():
    online, target = draw(0), draw(1)
    tensors = [x.requires_grad_() for x in (*online, *target)]
    gradients = torch.autograd.grad(similarity_loss(online, target), tensors, allow_unused=True)
    assert gradients[2:] == (None, None)
    want = torch.autograd.functional.jacobian(
        lambda q1, q2: sum(
            2 - 2 * torch.cosine_similarity(q, k, dim=1).mean()
            for q, k in ((q1, target[1]), (q2, target[0]))
        ),
        online,
    )
    torch.testing.assert_close(gradients[:2], want)


def test_attention_supervision_is_the_mean_squared_error_of_unit_vectors():
    c, t = draw(2), draw(3)
    assert attention_loss(c, t).item() == pytest.approx(naive_attention(c, t), abs=1e-12)
    assert attention_loss(c, (2 * c[0], 3 * c[1])).item() == pytest.approx(0, abs=1e-12)


def test_the_t_stream_supervises_and_is_not_pulled():
    c, t = draw(2), draw(3)
    tensors = [x.requires_grad_() for x in (*c, *t)]
    gradients = torch.autograd.grad(attention_loss(c, t), tensors, allow_unused=True)
    assert gradients[2:] == (None, None)
    assert all(g.abs().max() > 1e-3 for g in gradients[:2])


@pytest.mark.parametrize("weight", [0, 1, 100])
def test_the_total_is_equation_5(weight):
    c, t = outputs(0, 1, 2, 3)
    loss = care_loss(c, t, attention_weight=weight)
    terms = (
        naive_similarity(c.online, c.target),
        naive_similarity(t.online, t.target),
        naive_attention(c.online, t.online),
    )
    assert (loss.cnn.item(), loss.transformer.item(), loss.attention.item()) == pytest.approx(
        terms, abs=1e-12
    )
    assert loss.total.item() == pytest.approx(terms[0] + terms[1] + weight * terms[2], abs=1e-11)


def test_the_weight_is_the_papers_by_default():
    c, t = outputs(0, 1, 2, 3)
    assert care_loss(c, t).total == care_loss(c, t, attention_weight=100).total


def test_the_c_stream_alone_has_only_its_own_term():
    c, _ = outputs(0, 1, 2, 3)
    loss = care_loss(c, attention_weight=100)
    assert loss.total == loss.cnn
    assert loss.total.item() == pytest.approx(naive_similarity(c.online, c.target), abs=1e-12)
    assert (loss.transformer, loss.attention) == (0, 0)


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64,) * 2],
)
def test_the_loss_is_never_computed_below_float32(dtype, computed):
    c, t = outputs(0, 1, 2, 3, dtype=dtype)
    # cosines near 1
    c = c._replace(target=tuple((x.float() * 1.01).to(dtype) for x in reversed(c.online)))
    loss = care_loss(c, t)
    assert {term.dtype for term in loss} == {computed}
    c_online, c_target, t_online, t_target = (
        tuple(x.double() for x in pair) for pair in (c.online, c.target, t.online, t.target)
    )
    assert loss.cnn.item() == pytest.approx(naive_similarity(c_online, c_target), abs=2e-6)
    assert loss.transformer.item() == pytest.approx(naive_similarity(t_online, t_target), abs=2e-6)
    assert loss.attention.item() == pytest.approx(naive_attention(c_online, t_online), abs=2e-6)


def test_embeddings_of_unequal_width_are_refused():
    with pytest.raises(TypeCheckError):
        similarity_loss(draw(0), draw(1, d=8))
    with pytest.raises(TypeCheckError):
        attention_loss(draw(0), draw(1, b=6))


def test_the_norm_form_is_the_distance_that_equation_4_prints():
    c, t = draw(0), draw(1)
    distances = []
    for x, y in zip(c, t, strict=True):
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            distances.append(math.dist(unit(a), unit(b)))
    want = sum(distances) / 5
    assert float(attention_loss(c, t, norm=True)) == pytest.approx(want, rel=1e-12)
    c_out, t_out = outputs(0, 1, 2, 3)
    loss = care_loss(c_out, t_out, attention_weight=3, norm=True)
    attention = float(attention_loss(c_out.online, t_out.online, norm=True))
    total = float(loss.cnn + loss.transformer + 3 * loss.attention)
    assert float(loss.attention) == pytest.approx(attention, rel=1e-12)
    assert float(loss.total) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("norm", [False, True])
def test_where_both_streams_agree_the_supervision_and_its_gradient_are_zero(norm):
    c = tuple(x.requires_grad_() for x in draw(0))
    loss = attention_loss(c, c, norm=norm)
    loss.backward()
    assert loss == 0
    assert all((x.grad == 0).all() for x in c)
