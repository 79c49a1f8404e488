"""What a T-stream attends to, beside Eq. 2 one logit at a time."""

import math
from itertools import product
import pytest
import torch
from torch.nn import functional as F
from care import (
    AbsolutePosition,
    CareError,
    NoPosition,
    RelativePosition,
    SinCosPosition,
    streams_for,
)
from care.attention import SelfAttention2d
from care.evaluate.transformer_maps import Attending, attention_weights, transformer_map

POSITIONS = [RelativePosition, AbsolutePosition, SinCosPosition, NoPosition]


@pytest.mark.parametrize("position", POSITIONS)
def test_the_weights_are_those_of_the_attention_itself(position) -> None:
    """By them the values add up to what the kernel gives."""
    torch.manual_seed(0)
    attention = SelfAttention2d(6, map_size=(3, 4), heads=2, dim=8, position=position)
    x = torch.randn(2, 6, 3, 4)
    with torch.no_grad():
        weights = attention_weights(attention, x)
        values = attention.qkv(x).flatten(2).unflatten(1, (3, 2, 8))[:, 2]
        mixed = torch.einsum("bnij,bndj->bndi", weights, values).reshape(2, 16, 3, 4)
        torch.testing.assert_close(mixed, attention(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 2, 12))


def test_a_row_is_the_softmax_of_eq_2_logit_by_logit() -> None:
    torch.manual_seed(0)
    attention = SelfAttention2d(5, map_size=(2, 3), heads=2, dim=8)
    x = torch.randn(1, 5, 2, 3)
    places = list(product(range(2), range(3)))
    with torch.no_grad():
        weights = attention_weights(attention, x)
        tokens = attention.qkv(x)[0].unflatten(0, (3, 2, 8))
        rows, columns = attention.position.rows, attention.position.columns
        for head, (number, (i, j)) in product(range(2), enumerate(places)):
            q = tokens[0, head, :, i, j]
            logits = []
            for a, b in places:
                key = tokens[1, head, :, a, b] + rows[a - i + 1] + columns[b - j + 2]
                logits.append(float(q @ key) / math.sqrt(8))
            want = torch.tensor(logits).softmax(0)
            torch.testing.assert_close(weights[0, head, number], want, rtol=1e-4, atol=1e-5)


@pytest.fixture
def networks():
    c, t = streams_for("resnet18-small-half", size=32, blocks=3, zero_gamma=False)
    return c.backbone.online.train(), t.backbone.online.train()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def weights_by_hook(networks, images, number):
    """The attention of a block of the transformer, of what a whole pass gives it."""
    encoder, transformer = (network.eval() for network in networks)
    attention = transformer.blocks[number].attention
    inputs = []
    with (
        torch.no_grad(),
        attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0])),
    ):
        transformer(encoder(images).map)
    return attention_weights(attention, inputs[0]).detach(), inputs[0].shape[2:]


def test_by_default_it_is_the_mean_over_heads_and_queries_of_the_last_block(
    networks, images
) -> None:
    cam = transformer_map(*networks, images)
    assert all(network.training for network in networks)
    weights, (height, width) = weights_by_hook(networks, images, 2)
    want = torch.zeros(2, height * width)
    for head, query in product(range(weights.shape[1]), range(height * width)):
        want += weights[:, head, query] / (weights.shape[1] * height * width)
    want = F.interpolate(want.view(2, 1, height, width), (32, 48), mode="bilinear")[:, 0]
    torch.testing.assert_close(cam, want / want.mean((1, 2), keepdim=True))
    torch.testing.assert_close(cam.mean((1, 2)), torch.ones(2))


@pytest.mark.parametrize("query", [(0, 0), (0.6, 0.4), (1, 1)])
def test_one_head_of_one_block_from_one_query(networks, images, query) -> None:
    weights, (height, width) = weights_by_hook(networks, images, 0)
    cam = transformer_map(*networks, images, Attending(block=1, head=2, query=query))
    column = min(int(query[0] * width), width - 1)
    row = min(int(query[1] * height), height - 1)
    want = weights[:, 1, row * width + column].view(2, 1, height, width)
    want = F.interpolate(want, (32, 48), mode="bilinear")[:, 0]
    torch.testing.assert_close(cam, want / want.mean((1, 2), keepdim=True))


def test_what_is_not_there_is_refused(networks, images) -> None:
    with pytest.raises(CareError, match="wanted a block from 1 to 3, got 4"):
        transformer_map(*networks, images, Attending(block=4))
    with pytest.raises(CareError, match="wanted a head from 1 to 4, got 0"):
        transformer_map(*networks, images, Attending(head=0))
    with pytest.raises(CareError, match=r"from 0 to 1, got 1\.5, 0"):
        transformer_map(*networks, images, Attending(query=(1.5, 0)))


def test_in_words_it_says_blocks_heads_and_query(networks) -> None:
    _, transformer = networks
    assert Attending().describe(transformer) == (
        "attention of block 3 of 3, mean over 4 heads, mean over all positions"
    )
    assert Attending(1, 2, (0.5, 0.25)).describe(transformer) == (
        "attention of block 1 of 3, head 2, from position 0.5, 0.25"
    )
