import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional as F
from care import (
    AbsolutePosition,
    CareError,
    NoPosition,
    RelativePosition,
    SinCosPosition,
    Transformer,
)
from care.attention import AttentionBlock, SelfAttention2d

MAPS = [(4, 4), (5, 5), (2, 7), (6, 3), (1, 1)]
POSITIONS = [NoPosition, AbsolutePosition, SinCosPosition, RelativePosition]
HEADS, DIM = 2, 12
# outputs, and channels of a head
UNLIKELY_PROPORTIONS = [(768, 48), (440, 24), (368, 24), (192, 16), (16, 8), (1, 8)]


def position_vector(position, query, key, map_size):
    """What the query is multiplied with besides the key's content, for two pixels."""
    (i, j), (a, b) = query, key
    if isinstance(position, AbsolutePosition):
        return position.height[a] + position.width[b]
    if isinstance(position, RelativePosition):
        return position.rows[a - i + map_size[0] - 1] + position.columns[b - j + map_size[1] - 1]
    if isinstance(position, SinCosPosition):
        angles = [[n / 10000 ** (c / (DIM // 4)) for c in range(DIM // 4)] for n in (a, b)]
        row, column = torch.tensor(angles, dtype=torch.float64)
        return torch.cat((row.sin(), row.cos(), column.sin(), column.cos()))
    return torch.zeros(DIM, dtype=torch.float64)


def equation_2(attention, x):
    """softmax((q·pᵀ + q·kᵀ)/√d)·v, one logit at a time."""
    b, _, h, w = x.shape
    qkv = torch.einsum("oc,bchw->bohw", attention.qkv.weight[:, :, 0, 0], x)
    q, k, v = qkv.view(b, 3, HEADS, DIM, h, w).unbind(1)
    pixels = [(i, j) for i in range(h) for j in range(w)]
    out = []
    for i, j in pixels:
        logits = []
        for a, c in pixels:
            p = position_vector(attention.position, (i, j), (a, c), (h, w))
            logits.append((q[..., i, j] * p).sum(-1) + (q[..., i, j] * k[..., a, c]).sum(-1))
        weights = (torch.stack(logits, -1) / DIM**0.5).softmax(-1)
        out.append(sum(weights[..., n, None] * v[..., a, c] for n, (a, c) in enumerate(pixels)))
    return torch.stack(out, -1).reshape(b, HEADS * DIM, h, w)


@pytest.mark.parametrize("map_size", MAPS)
@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_computes_equation_2(position, map_size):
    torch.manual_seed(0)
    attention = SelfAttention2d(
        6, map_size=map_size, heads=HEADS, dim=DIM, position=position
    ).double()
    for p in attention.position.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(2, 6, *map_size, dtype=torch.float64) * 3
    got, want = attention(x), equation_2(attention, x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    parameters = list(attention.parameters())
    gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in (got, want)]
    for mine, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, naive, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("position", POSITIONS[1:])
def test_positions_matter(position):
    torch.manual_seed(0)
    attention = SelfAttention2d(6, map_size=(3, 4), position=position)
    x = torch.randn(1, 6, 3, 4)
    moved = attention(x.flip(3)).flip(3)
    assert (attention(x) - moved).abs().max() > 1e-3
    attention.position = NoPosition(128, (3, 4))
    torch.testing.assert_close(attention(x), attention(x.flip(3)).flip(3), rtol=0, atol=1e-6)


def test_the_parameters_are_those_of_the_paper():
    shapes = {}
    for position in POSITIONS:
        # tables that are fixed are not saved
        state = position(128, (14, 10)).state_dict()
        shapes[position] = {name: tuple(table.shape) for name, table in state.items()}
    assert shapes == {
        NoPosition: {},
        SinCosPosition: {},
        AbsolutePosition: {"height": (14, 128), "width": (10, 128)},
        RelativePosition: {"rows": (27, 128), "columns": (19, 128)},
    }
    assert SelfAttention2d(512, map_size=(14, 14)).qkv.weight.shape == (3 * 4 * 128, 512, 1, 1)


@pytest.mark.parametrize(
    ("outputs", "width"), [(2048, 128), (512, 32), (256, 16), *UNLIKELY_PROPORTIONS]
)
def test_heads_keep_the_papers_proportion_to_the_outputs(outputs, width):
    transformer = Transformer(8, outputs, map_size=(4, 3), blocks=2)
    assert (transformer.heads, transformer.dim) == (4, width)
    for block in transformer.blocks:
        assert block.attention.qkv.out_channels == 3 * 4 * width
        assert block.expand[0].num_features == 4 * width
    assert transformer(torch.randn(2, 8, 4, 3)).shape == (2, outputs)


@pytest.mark.parametrize("position", POSITIONS)
def test_any_number_and_width_of_heads(position):
    torch.manual_seed(0)
    options = {"map_size": (5, 3), "blocks": 2, "position": position}
    for heads, dim in ((1, 4), (3, 12), (8, 20)):
        transformer = Transformer(6, 10, heads=heads, dim=dim, **options)
        assert transformer.blocks[1].attention.qkv.out_channels == 3 * heads * dim
        assert transformer(torch.randn(2, 6, 5, 3)).isfinite().all()


def test_the_transformer_of_resnet_50_is_the_papers():
    transformer = Transformer(1024, 2048, map_size=(14, 14))
    for block in transformer.blocks:
        assert block.attention.qkv.weight.shape == (3 * 4 * 128, 512, 1, 1)
        assert block.expand[2].weight.shape == (2048, 512, 1, 1)


def test_a_channels_last_map_stays_one():
    attention = SelfAttention2d(8, map_size=(4, 6), heads=2, dim=8)
    maps = torch.randn(3, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    assert attention(maps).is_contiguous(memory_format=torch.channels_last)


def test_reduced_precision_stays_close():
    torch.manual_seed(0)
    for position in POSITIONS:
        attention = SelfAttention2d(6, map_size=(3, 5), position=position)
        x = torch.randn(2, 6, 3, 5)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = attention(x)
        assert reduced.dtype == torch.bfloat16
        torch.testing.assert_close(reduced.float(), attention(x), rtol=0.05, atol=0.05)


def stretched(table, count):
    """The table read at ``count`` evenly spaced places from its first to its last row."""
    places = torch.linspace(0, len(table) - 1, count, dtype=torch.float64)
    below, above = places.floor().long(), places.ceil().long()
    return torch.lerp(table[below], table[above], (places - below)[:, None])


@pytest.mark.parametrize("built", [(4, 4), (7, 3)])
@pytest.mark.parametrize("used", [(6, 6), (3, 5), (2, 9)])
@pytest.mark.parametrize("position", POSITIONS)
def test_on_maps_of_another_size_tables_are_stretched_end_to_end(position, used, built):
    torch.manual_seed(0)
    attention = SelfAttention2d(6, map_size=built, heads=HEADS, dim=DIM, position=position).double()
    other = SelfAttention2d(6, map_size=used, heads=HEADS, dim=DIM, position=position).double()
    other.qkv.load_state_dict(attention.qkv.state_dict())
    for name, table in attention.position.named_parameters():
        torch.nn.init.normal_(table)
        fitting = other.position.get_parameter(name)
        fitting.data = stretched(table.data, len(fitting))
    x = torch.randn(2, 6, *used, dtype=torch.float64) * 3
    torch.testing.assert_close(attention(x), equation_2(other, x), rtol=0, atol=1e-6)
    attention(x).square().sum().backward()
    assert all(table.grad.abs().max() > 0 for table in attention.position.parameters())


def test_a_transformer_takes_maps_of_any_size():
    torch.manual_seed(0)
    transformer = Transformer(8, 16, map_size=(14, 14), blocks=2)
    for size in ((6, 6), (14, 10), (3, 17), (1, 1)):
        assert transformer(torch.randn(2, 8, *size)).shape == (2, 16)


@pytest.mark.parametrize(
    ("map_size", "halved"), [((4, 4), (2, 2)), ((5, 5), (3, 3)), ((7, 4), (4, 2)), ((1, 3), (1, 2))]
)
def test_the_first_block_halves_the_map_and_odd_sizes_round_up(map_size, halved):
    transformer = Transformer(8, 16, map_size=map_size, blocks=3)
    maps = torch.randn(2, 8, *map_size)
    first = transformer.blocks[0](maps)
    assert first.shape == (2, 16, *halved)
    assert transformer.blocks[1:](first).shape == first.shape
    assert transformer(maps).shape == (2, 16) == (2, transformer.features)
    assert len(transformer.blocks) == 3


def test_features_are_the_mean_over_the_pixels():
    torch.manual_seed(0)
    transformer = Transformer(8, 16, map_size=(4, 6), blocks=2).eval()
    maps = torch.randn(2, 8, 4, 6)
    last = transformer.blocks(maps)
    want = [[sum(last[b, c].flatten().tolist()) / 6 for c in range(16)] for b in range(2)]
    torch.testing.assert_close(transformer(maps), torch.tensor(want))


def test_every_block_starts_as_its_shortcut():
    torch.manual_seed(0)
    transformer = Transformer(8, 16, map_size=(4, 4), blocks=3)
    for block in transformer.blocks:
        assert torch.equal(block.expand[-1].weight, torch.zeros(16))
    x = torch.rand(2, 16, 2, 2)
    assert torch.equal(transformer.blocks[1:](x), x)
    maps = torch.randn(2, 8, 4, 4)
    convolution, norm, _ = transformer.blocks[0].shortcut
    want = F.conv2d(maps, convolution.weight, stride=2, padding=1)
    want = F.batch_norm(want, None, None, norm.weight, norm.bias, training=True).relu()
    torch.testing.assert_close(transformer.blocks[0](maps), want)


def test_a_block_is_reduce_attend_pool_expand_and_shortcut():
    torch.manual_seed(0)
    block = AttentionBlock(8, 16, map_size=(4, 6), downsample=True).eval()
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(2, 8, 4, 6)
    by_name = dict(block.named_parameters())

    def norm(x, name):  # running mean 0 and variance 1
        weight, bias = (by_name[f"{name}.{p}"][:, None, None] for p in ("weight", "bias"))
        return x / (1 + 1e-5) ** 0.5 * weight + bias

    inner = norm(F.conv2d(x, by_name["reduce.0.weight"]), "reduce.1").relu()
    attended = F.avg_pool2d(block.attention(inner), 2)
    out = norm(F.conv2d(norm(attended, "expand.0").relu(), by_name["expand.2.weight"]), "expand.3")
    shortcut = norm(
        F.conv2d(x, by_name["shortcut.0.weight"], stride=2, padding=1), "shortcut.1"
    ).relu()
    torch.testing.assert_close(block(x), (out + shortcut).relu(), rtol=1e-4, atol=1e-4)


def test_the_shapes_in_annotations_are_checked():
    with pytest.raises(TypeCheckError):
        Transformer(8, 16, map_size=(4, 4), blocks=1)(torch.zeros(8, 4, 4))


def test_what_no_transformer_can_have_is_refused():
    with pytest.raises(CareError, match="wanted at least 1 attention block, got 0"):
        Transformer(8, 16, map_size=(4, 4), blocks=0)
    with pytest.raises(CareError, match=r"wanted a multiple of 4 channels a head .*, got 6"):
        Transformer(8, 16, map_size=(4, 4), dim=6, position=SinCosPosition)
