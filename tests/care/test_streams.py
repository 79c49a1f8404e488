import pytest
import torch
from torch import nn
from care import (
    BYOL,
    CareError,
    CStream,
    MomentumPair,
    Transformer,
    TStream,
    build_encoder,
    care_loss,
    mlp_head,
    resnet18,
    similarity_loss,
    streams_for,
)
from care.encoded import map_shape


@pytest.fixture
def streams():
    return streams_for("resnet18-small-half", size=32, seed=1, blocks=2, objective=BYOL(hidden=24))


def views(b=4, size=32):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(b, 3, size, size, generator=generator) for _ in range(2)]


def copies(parameters):
    return [p.detach().clone() for p in parameters]


def targets(*streams):
    parameters = []
    for stream in streams:
        parameters += stream.backbone.target.parameters()
        parameters += stream.projector.target.parameters()
    return parameters


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_heads_are_linear_norm_relu_linear_with_bias():
    torch.manual_seed(0)
    head = mlp_head(6, hidden=10, outputs=4).eval()
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "0.weight": (10, 6),
        "0.bias": (10,),
        "1.weight": (10,),
        "1.bias": (10,),
        "3.weight": (4, 10),
        "3.bias": (4,),
    }
    x = torch.randn(5, 6)
    p = dict(head.named_parameters())
    hidden = ((x @ p["0.weight"].T + p["0.bias"]) / (1 + 1e-5) ** 0.5).relu()
    torch.testing.assert_close(head(x), hidden @ p["3.weight"].T + p["3.bias"])
    assert [m.out_features for m in mlp_head(2048) if isinstance(m, nn.Linear)] == [4096, 256]


def test_both_streams_are_backbone_projector_predictor(streams):
    c, t = (stream.eval() for stream in streams)
    x = views()
    # online and target must not pass for each other
    for parameter in targets(c, t):
        nn.init.normal_(parameter, std=0.1)
    c_out = c(*x)
    t_out = t(c_out.maps)
    for view in range(2):
        online, target = c.backbone.online(x[view]), c.backbone.target(x[view])
        assert torch.equal(c_out.online[view], c.predictor(c.projector.online(online.features)))
        assert torch.equal(c_out.target[view], c.projector.target(target.features))
        assert torch.equal(c_out.maps.online[view], online.map)
        assert torch.equal(c_out.maps.target[view], target.map)
        t_online, t_target = t.backbone.online(online.map), t.backbone.target(target.map)
        assert torch.equal(t_out.online[view], t.predictor(t.projector.online(t_online)))
        assert torch.equal(t_out.target[view], t.projector.target(t_target))


def test_gradients_reach_the_online_networks_and_nothing_else(streams):
    c, t = streams
    x = views()
    c_out = c(*x)
    t_out = t(c_out.maps)
    assert not any(tensor.requires_grad for out in (c_out, t_out) for tensor in out.target)
    assert not any(tensor.requires_grad for tensor in c_out.maps.target)
    care_loss(c_out, t_out).total.backward()
    online = [*c.online_parameters(), *t.online_parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in online)
    want = []
    for stream in streams:
        for network in (stream.backbone.online, stream.projector.online, stream.predictor):
            want += network.parameters()
    assert {id(p) for p in online} == {id(p) for p in want}
    assert all(p.grad is None and not p.requires_grad for p in targets(c, t))


def test_an_optimizer_step_leaves_the_targets_and_update_moves_them(streams):
    c, t = streams
    optimizer = torch.optim.SGD(
        [*c.online_parameters(), *t.online_parameters()], lr=0.1, momentum=0.9, weight_decay=1e-4
    )
    before, online = copies(targets(c, t)), copies(c.online_parameters())
    c_out = c(*views())
    care_loss(c_out, t(c_out.maps)).total.backward()
    optimizer.step()
    assert same(targets(c, t), before)
    assert not same(c.online_parameters(), online)
    c.update(0.5)
    t.update(0.5)
    twins = []
    for stream in streams:
        twins += stream.backbone.online.parameters()
        twins += stream.projector.online.parameters()
    for target, then, twin in zip(targets(c, t), before, twins, strict=True):
        torch.testing.assert_close(target, 0.5 * then + 0.5 * twin.detach(), rtol=0, atol=1e-6)


def test_the_t_loss_trains_the_encoder_up_to_the_tap(streams):
    c, t = streams
    t_out = t(c(*views()).maps)
    similarity_loss(t_out.online, t_out.target).backward()
    encoder = c.backbone.online
    for stage in (encoder.conv1, encoder.layer1, encoder.layer2, encoder.layer3):
        assert max(p.grad.abs().max() for p in stage.parameters()) > 0
    for after_the_tap in (encoder.layer4, c.projector, c.predictor):
        assert all(p.grad is None for p in after_the_tap.parameters())


def test_batch_norm_sees_one_view_at_a_time():
    torch.manual_seed(0)
    c = CStream(MomentumPair(resnet18(small=True, half=True)), BYOL(hidden=8, dim=4))
    view1, view2 = views()
    with_view2_changed = c(view1, 5 * view2 + 1).online[0].detach()
    for module in c.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.num_batches_tracked == 2
    torch.testing.assert_close(c(view1, view2).online[0].detach(), with_view2_changed)


def test_the_target_runs_in_train_mode_on_its_own_statistics(streams):
    c, _ = streams
    x = views()
    c(*x)
    statistics = c.backbone.target.bn1.running_mean
    assert statistics.abs().max() > 0
    want = torch.zeros_like(statistics)
    for view in x:
        want = 0.9 * want + 0.1 * c.backbone.target.conv1(view).mean((0, 2, 3))
    torch.testing.assert_close(statistics, want)


def test_widths_are_the_callers():
    c = CStream(MomentumPair(resnet18(small=True, half=True)), BYOL(hidden=24, dim=16))
    transformer = Transformer(128, 64, map_size=(4, 4), blocks=1)
    t = TStream(MomentumPair(transformer), BYOL(hidden=40, dim=16))
    c_out = c(*views())
    for out in (c_out, t(c_out.maps)):
        assert {tuple(e.shape) for e in (*out.online, *out.target)} == {(4, 16)}
    assert (c.predictor[0].out_features, t.predictor[0].out_features) == (24, 40)


def state(streams):
    return [value for stream in streams for value in stream.state_dict().values()]


def test_initial_weights_are_a_function_of_the_seed(streams, untouched_generator):
    torch.rand(3)
    options = {"size": 32, "blocks": 2, "objective": BYOL(hidden=24)}
    with untouched_generator():
        again = streams_for("resnet18-small-half", seed=1, **options)
    assert same(state(streams), state(again))
    (c, t), (other_c, other_t) = streams, streams_for("resnet18-small-half", seed=2, **options)
    assert not c.backbone.online.conv1.weight.equal(other_c.backbone.online.conv1.weight)
    assert not t.predictor[0].weight.equal(other_t.predictor[0].weight)


@pytest.mark.parametrize(("size", "side"), [(32, 4), (40, 5), (50, 7)])
def test_the_transformer_fits_the_encoders_map(size, side):
    c, t = streams_for("resnet18-small-half", size=size, blocks=3, objective=BYOL(hidden=8))
    assert len(t.backbone.online.blocks) == 3
    assert t.backbone.online.blocks[0].attention.position.rows.shape[0] == 2 * side - 1
    assert t.backbone.online.features == c.backbone.online.features == 256
    assert t(c(*views(2, size)).maps).online[0].shape == (2, 256)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(CareError, match="no encoder is called 'vit'"):
        streams_for("vit", size=32)


def test_detached_the_t_loss_trains_the_t_stream_alone(streams):
    c, t = streams
    detached = TStream(t.backbone, BYOL(hidden=24), detach=True)
    detached.load_state_dict(t.state_dict())
    maps = c(*views()).maps
    for out, plain in zip(detached(maps).online, t(maps).online, strict=True):
        torch.testing.assert_close(out, plain)
    out = detached(maps)
    similarity_loss(out.online, out.target).backward()
    assert all(p.grad is None for p in c.online_parameters())
    assert all(p.grad is not None for p in detached.online_parameters())


def test_the_transformer_is_fitted_to_a_map_that_is_not_square():
    encoder = build_encoder("resnet18-small-half")
    assert map_shape(encoder, "32x64") == (128, 4, 8)
    by_text, by_tuple = (
        streams_for("resnet18-small-half", size=size, blocks=1)[1] for size in ("32x64", (32, 64))
    )
    names = [name for name, _ in by_text.named_parameters()]
    assert any("relative" in name or "position" in name for name in names)
    for name, tensor in by_tuple.state_dict().items():
        torch.testing.assert_close(by_text.state_dict()[name], tensor, rtol=0, atol=0)
