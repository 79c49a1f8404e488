from importlib import import_module
import pytest
import torch
from memory import peak
from care.evaluate import Features, weighted_knn
from care.evaluate.neighbours import Blocks, choose_blocks, knn_memory, nearest

module = import_module("care.evaluate.knn")
BLOCKS = [
    Blocks(60, 60, 120),
    Blocks(60, 7, 11),
    Blocks(13, 5, 1),
    Blocks(1, 1, 119),
    Blocks(17, 17, 40),
]


def draw(seed, count, features=24):
    return 5 * torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def corners(seed, count):
    """Rows whose cosines are exact in float32, whatever is summed first: most have equals."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, 4), generator=generator) * 2.0 - 1
    return signs * 2.0 ** torch.randint(-3, 4, (count, 1), generator=generator)


def plain(queries, keys, k):
    """The whole product in float64; of equal cosines the first key comes first."""
    unit = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (queries, keys)]
    cosines, rows = (unit[0] @ unit[1].T).sort(dim=1, descending=True, stable=True)
    return cosines[:, :k], rows[:, :k]


@pytest.mark.parametrize("blocks", [None, *BLOCKS])
@pytest.mark.parametrize("k", [1, 20, 119, 500])
def test_blocks_of_any_size_give_what_the_whole_product_gives(blocks, k):
    queries, keys = draw(0, 60), draw(1, 120)
    got, (cosines, rows) = nearest(queries, keys, k, blocks=blocks), plain(queries, keys, k)
    assert got.rows.tolist() == rows.tolist()
    torch.testing.assert_close(got.cosines, cosines.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("blocks", [None, *BLOCKS])
@pytest.mark.parametrize("k", [3, 20, 500])
def test_of_equal_cosines_the_first_key_wins_wherever_blocks_end(blocks, k):
    queries, keys = corners(0, 60), corners(1, 120)
    got, (cosines, rows) = nearest(queries, keys, k, blocks=blocks), plain(queries, keys, k)
    assert k < 500 or (cosines == 0).any()
    assert (cosines[:, :-1] == cosines[:, 1:]).double().mean() > 0.5
    assert got.rows.tolist() == rows.tolist()
    assert got.cosines.tolist() == cosines.tolist()


def test_a_zero_of_either_sign_is_one_cosine():
    keys = torch.tensor([[0.0, -1.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -2.0]])
    got = nearest(torch.tensor([[1.0, 0.0], [-1.0, -0.0]]), keys, 4)
    assert got.rows.tolist() == [[0, 1, 3, 2], [2, 0, 1, 3]]


def test_sets_of_one_row_and_of_none():
    assert nearest(draw(0, 1), draw(1, 1), 20).rows.tolist() == [[0]]
    assert nearest(draw(0, 0), draw(1, 9), 20).rows.shape[0] == 0


@pytest.mark.parametrize("blocks", BLOCKS)
def test_the_vote_does_not_depend_on_the_blocks(blocks, monkeypatch):
    labels = torch.randint(9, (180,), generator=torch.Generator().manual_seed(2))
    train = Features(draw(0, 120, 3), labels[:120], 9)
    val = Features(draw(1, 60, 3), labels[120:], 9)
    want = weighted_knn(train, val)
    monkeypatch.setattr(module, "nearest", lambda *args, device: nearest(*args, blocks=blocks))
    assert weighted_knn(train, val) == want


def test_every_key_is_sent_once_for_the_resident_queries(monkeypatch):
    sent, to = [], torch.Tensor.to

    def record(rows, *args, **more):
        sent.append(len(rows))
        return to(rows, *args, **more)

    monkeypatch.setattr(torch.Tensor, "to", record)
    nearest(draw(0, 60), draw(1, 120), 5, blocks=Blocks(60, 7, 50))
    assert sent == [7] * 8 + [4] + [50, 50, 20]


@pytest.mark.parametrize(
    ("blocks", "features", "k"),
    [
        (Blocks(1000, 100, 500), 256, 20),
        (Blocks(400, 400, 2000), 16, 5),
        pytest.param(Blocks(2000, 30, 40), 64, 200, marks=pytest.mark.slow),
    ],
)
def test_the_memory_is_what_the_formula_says(blocks, features, k):
    queries, keys = draw(0, 2000, features), draw(1, 3000, features)
    most = peak(lambda: nearest(queries, keys, k, blocks=blocks))
    passes = 8 * k * 2 * len(queries)  # the result, on the CPU, joined
    assert most <= knn_memory(blocks, features, k) + 2 * passes
    assert most >= 0.6 * knn_memory(blocks, features, k)  # a block is not sent where it is already


@pytest.mark.parametrize("queries", [10, 50_000, 1_281_167])
@pytest.mark.parametrize("keys", [7, 12_800, 1_281_167])
@pytest.mark.parametrize("k", [20, 200])
@pytest.mark.parametrize("memory", [2**28, 2**31, 2**33])
def test_the_blocks_fit_into_memory_and_use_it(queries, keys, k, memory):
    blocks = choose_blocks(queries, keys, 2048, k, memory=memory)
    assert knn_memory(blocks, 2048, k) <= memory
    assert 0 < blocks.queries <= blocks.resident <= queries
    assert 0 < blocks.keys <= keys
    if queries > blocks.resident:
        assert knn_memory(blocks._replace(resident=blocks.resident + 1), 2048, k) > memory


def test_imagenet_needs_one_pass():
    blocks = choose_blocks(50_000, 1_281_167, 2048, 200)
    assert blocks.resident == 50_000
    assert knn_memory(blocks, 2048, 200) < 2 * 2**30


def test_blocks_of_one_row_where_nothing_fits():
    assert choose_blocks(50, 70, 2048, 20, memory=100) == Blocks(1, 1, 1)
