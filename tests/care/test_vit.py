"""ViT encoders beside timm's network with the positions and initial weights of MoCo v3's paper."""

import copy
import math
import sys
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from care import (
    BYOL,
    VITS,
    BYOLViT,
    CareError,
    MoCoV3ViT,
    ViTEncoder,
    build_encoder,
    c_stream_for,
    streams_for,
)
from care.encoded import map_shape
from care.sequential import sequential_stream


def make_tiny(*, size=32):
    torch.manual_seed(0)
    encoder = build_encoder("vit-tiny8").eval()
    encoder.fit(size)
    return encoder


def naive_positions(rows, columns, width):
    """MoCo v3's, a number at a time: sin and cos of the row, then of the column."""
    table = torch.zeros(rows * columns, width, dtype=torch.float64)
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for k in range(quarter):
                frequency = 1 / 10000 ** (k / quarter)
                values = [row * frequency, row * frequency, column * frequency, column * frequency]
                for part, angle in enumerate(values):
                    wave = math.cos if part % 2 else math.sin
                    table[row * columns + column, part * quarter + k] = wave(angle)
    return table


def with_learned_table(encoder, *, side):
    """Timm's whole network with the encoder's weights, and positions in its own table."""
    network = VisionTransformer(
        img_size=side, patch_size=8, num_classes=0, embed_dim=64, depth=2, num_heads=4
    )
    patches = side // 8
    table = torch.zeros(1, 1 + patches**2, 64)
    table[0, 1:] = naive_positions(patches, patches, 64)
    network.load_state_dict({**encoder.model.state_dict(), "pos_embed": table})
    return network.eval()


def test_the_features_are_the_class_token_of_timms_network_with_fixed_positions():
    encoder = make_tiny()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        encoded = encoder(images)
        tokens = with_learned_table(encoder, side=32).forward_features(images)
    torch.testing.assert_close(encoded.features, tokens[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded.map.flatten(2).mT, tokens[:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (4, 7)])
def test_positions_are_the_papers_sines_and_cosines(rows, columns):
    encoder = make_tiny(size=8 * rows)
    got = encoder.positions(rows, columns)[:: columns or 1]  # the first of each row
    want = naive_positions(rows, columns, 64)[::columns]
    torch.testing.assert_close(got[:, :32].double(), want[:, :32], rtol=0, atol=1e-6)


def test_patches_of_another_size_lie_where_their_middles_would():
    encoder = make_tiny(size=32)
    fine = encoder.positions(8, 8).view(8, 8, 64)
    # two patches in the place of one: their middles are a quarter before and behind its own
    angle = torch.tensor([-0.25, 0.25, 0.75])
    torch.testing.assert_close(fine[0, :3, 32], angle.sin(), rtol=0, atol=1e-6)
    torch.testing.assert_close(fine[:3, 0, 0], angle.sin(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "model", "heads"),
    [("vit-s16", "vit_small_patch16_224", 12), ("vit-b16", "vit_base_patch16_224", 12)],
)
def test_the_networks_are_timms_but_for_the_heads_of_the_small_one(name, model, heads):
    with torch.device("meta"):
        encoder = build_encoder(name)
        reference = timm.create_model(model, num_classes=0, num_heads=heads)
    shapes = {key: tensor.shape for key, tensor in encoder.model.state_dict().items()}
    shapes["pos_embed"] = reference.pos_embed.shape
    assert shapes == {key: tensor.shape for key, tensor in reference.state_dict().items()}
    assert {block.attn.num_heads for block in encoder.model.blocks} == {heads}
    assert encoder.features == reference.num_features


def test_initial_weights_are_xaviers_with_queries_keys_and_values_apart():
    encoder = make_tiny()
    bounds = {
        "patch_embed.proj": math.sqrt(6 / (3 * 8 * 8 + 64)),
        "blocks.0.attn.qkv": math.sqrt(6 / (64 + 64)),
        "blocks.1.attn.proj": math.sqrt(6 / (64 + 64)),
        "blocks.1.mlp.fc1": math.sqrt(6 / (64 + 256)),
        "blocks.0.mlp.fc2": math.sqrt(6 / (256 + 64)),
    }
    for path, bound in bounds.items():
        layer = encoder.model.get_submodule(path)
        weight = layer.weight.detach()
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert not layer.bias.any()
    assert 0 < encoder.model.cls_token.abs().max() < 1e-5


def test_the_projection_of_the_patches_alone_is_frozen():
    encoder = make_tiny()
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"model.patch_embed.proj.weight", "model.patch_embed.proj.bias"}


def test_a_side_that_is_no_multiple_of_the_patches_is_one_line():
    with pytest.raises(CareError, match="multiples of 8 px for vit-tiny8, got 36×32; give another"):
        make_tiny()(torch.zeros(1, 3, 36, 32))
    with pytest.raises(CareError, match="multiples of 8 px"):
        map_shape(make_tiny(), 36)


def test_every_vit_is_rebuilt_by_its_name_and_an_unknown_one_names_them():
    with torch.device("meta"):
        assert [build_encoder(name).name for name in VITS] == [*VITS]
    with pytest.raises(CareError, match=r"no encoder is called 'vit-s32'; .*vit-s16, vit-b16"):
        build_encoder("vit-s32")


def test_without_timm_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models.vision_transformer", None)
    with pytest.raises(CareError, match=r"timm is not installed; pip install 'care-ssl\[timm\]'"):
        build_encoder("vit-s16")


def test_the_t_stream_refuses_them_in_one_line():
    wanted = r"vit-tiny8 has no T-stream, which guides a CNN by .*\(--no-t-stream"
    for make in (streams_for, sequential_stream):
        with pytest.raises(CareError, match=wanted):
            make("vit-tiny8", size=32)


@pytest.mark.parametrize("objective", [MoCoV3ViT(hidden=16, dim=8), BYOLViT(hidden=16, dim=8)])
def test_heads_are_of_three_and_two_layers_without_biases_and_end_in_batch_norms(objective):
    c = c_stream_for("vit-tiny8", objective=objective)
    widths = {"projector": [(64, 16), (16, 16), (16, 8)], "predictor": [(8, 16), (16, 8)]}
    for name, layers in widths.items():
        head = c.projector.online if name == "projector" else c.predictor
        linear = [module for module in head if isinstance(module, nn.Linear)]
        assert [(module.in_features, module.out_features) for module in linear] == layers
        assert not any(module.bias is not None for module in linear)
        last = head[-1]
        assert isinstance(last, nn.BatchNorm1d)
        assert not last.affine
    assert objective.pair is BYOL.pair


def test_the_losses_are_those_of_moco_v3_at_a_fifth_and_of_byol():
    torch.manual_seed(0)
    online, target = torch.randn(2, 2, 6, 8).unbind(0)
    cosines = [
        nn.functional.normalize(online[i]) @ nn.functional.normalize(target[1 - i]).T
        for i in range(2)
    ]
    labels = torch.arange(6)
    want = sum(2 * 0.2 * nn.functional.cross_entropy(each / 0.2, labels) for each in cosines)
    views = (online[0], online[1]), (target[0], target[1])
    torch.testing.assert_close(MoCoV3ViT().loss(*views), want)
    torch.testing.assert_close(BYOLViT().loss(*views), BYOL().loss(*views))


def test_the_c_stream_alone_is_drawn_from_its_seed(untouched_generator):
    with untouched_generator():
        first, again, other = (c_stream_for("vit-tiny8", seed=seed) for seed in (0, 0, 1))
    states = [stream.state_dict() for stream in (first, again, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    weight = "backbone.online.model.blocks.0.attn.qkv.weight"
    assert not torch.equal(states[0][weight], states[2][weight])


def test_both_networks_of_the_c_stream_have_the_positions_of_its_size():
    c = c_stream_for("vit-tiny8", size=24)
    assert c.backbone.online.grid == c.backbone.target.grid == 3
    assert c_stream_for("vit-tiny8").backbone.online.grid == 28


def test_maps_are_the_tokens_of_the_patches():
    encoder = make_tiny()
    images = torch.randn(2, 3, 24, 40)
    maps = encoder.maps(images)
    assert maps.keys() == {"tokens"}
    assert maps["tokens"].shape == (2, 64, 3, 5)
    assert torch.equal(maps["tokens"], encoder(images).map)
    assert isinstance(copy.deepcopy(encoder), ViTEncoder)
