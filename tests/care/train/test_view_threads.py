import copy
import threading
import pytest
import torch
from torch import nn
from care import (
    BYOL,
    BarlowTwins,
    CStream,
    MomentumPair,
    SimSiam,
    SwAV,
    TStream,
    care_loss,
    streams_for,
)
from care.encoded import Encoded
from care.train import view_threads as module
from care.train.view_threads import ViewThreads, views_in_threads

SIZE = 16


@pytest.fixture(autouse=True)
def threads_as_each_test_sets_them(monkeypatch):
    """However many cores there are, and whatever ``OMP_NUM_THREADS`` says; one afterwards."""
    monkeypatch.setattr(module, "limit_threads", lambda: None)
    yield
    torch.set_num_threads(1)


def make_streams(*, with_t=True, objective=None):
    objective = objective or BYOL(hidden=24, dim=16)
    c, t = streams_for("resnet18-small-half", size=SIZE, seed=2, blocks=2, objective=objective)
    generator = torch.Generator().manual_seed(5)
    for layer in t.modules():  # a last γ of zero would hide the attention
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
    return c.double(), t.double() if with_t else None


def make_views(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def trained(streams):
    return [p for stream in streams if stream for p in stream.parameters() if p.requires_grad]


def statistics(streams):
    return [buffer.clone() for stream in streams if stream for buffer in stream.buffers()]


def plain_step(c, t, views):
    """As a reader of the README would write it."""
    c_out = c(*views)
    loss = care_loss(c_out, t(c_out.maps) if t else None)
    loss.total.backward()
    return loss


OBJECTIVES = {
    "BYOL": BYOL(hidden=24, dim=16),
    "SimSiam": SimSiam(hidden=24, dim=16, bottleneck=8),
    "BarlowTwins": BarlowTwins(hidden=24, dim=16),
}


@pytest.mark.parametrize(
    ("name", "threads", "with_t"),
    [
        ("BYOL", 2, True),
        ("BYOL", 2, False),
        ("BYOL", 1, True),
        ("SimSiam", 2, True),
        ("BarlowTwins", 2, True),
    ],
)
def test_losses_gradients_and_statistics_are_those_of_the_plain_step(name, threads, with_t):
    plain = make_streams(with_t=with_t, objective=OBJECTIVES[name])
    ours = copy.deepcopy(plain)
    torch.set_num_threads(threads)
    with views_in_threads(*ours, size=SIZE) as view_threads:
        for number in range(2):  # gradients of both batches add up
            want = plain_step(*plain, make_views(number))
            got = care_loss(*view_threads(*make_views(number)))
            got.total.backward()
            torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=1e-12, atol=1e-12)
    for parameter, reference in zip(trained(ours), trained(plain), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-7, atol=1e-11)
    for buffer, reference in zip(statistics(ours), statistics(plain), strict=True):
        torch.testing.assert_close(buffer, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("small", "with_t"), [(2, True), (3, False)])
def test_small_crops_are_divided_between_the_threads(small, with_t):
    """An odd one goes through the first alone."""
    objective = SwAV(hidden=24, dim=16, prototypes=6, frozen_steps=1)
    plain = make_streams(with_t=with_t, objective=objective)
    ours = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(7)
    crops = torch.randn(small, 6, 3, 16, 16, generator=generator, dtype=torch.float64)
    torch.set_num_threads(2)
    with views_in_threads(*ours, size=SIZE) as view_threads:
        for number in range(2):  # the second step moves the prototypes, too
            views = (*make_views(number), *crops)
            want = plain_step(*plain, views)
            got = care_loss(*view_threads(*views))
            got.total.backward()
            torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=1e-12, atol=1e-12)
            for stream in (plain[0], ours[0]):
                stream.criterion.after_step()
    for parameter, reference in zip(trained(ours), trained(plain), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-7, atol=1e-11)
    for buffer, reference in zip(statistics(ours), statistics(plain), strict=True):
        torch.testing.assert_close(buffer, reference, rtol=1e-12, atol=1e-12)


def test_one_core_and_two_give_the_same_bits():
    outcomes = []
    for threads in (1, 2):
        streams = make_streams()
        for stream in streams:
            stream.float()
        torch.set_num_threads(threads)
        with views_in_threads(*streams, size=SIZE) as view_threads:
            for number in range(3):
                loss = care_loss(*view_threads(*make_views(number).float()))
                loss.total.backward()
        gradients = [parameter.grad for parameter in trained(streams)]
        outcomes.append([loss.total.detach(), *gradients, *statistics(streams)])
    assert all(map(torch.equal, *outcomes))


def test_the_second_view_goes_through_another_thread_with_its_share_of_the_threads():
    seen = {}

    class Watched(nn.Module):
        features = 4

        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            seen[threading.current_thread().name] = torch.get_num_threads()
            feature_map = self.convolution(x)
            return Encoded(feature_map, feature_map.mean((2, 3)))

    c = CStream(MomentumPair(Watched()), BYOL(hidden=8, dim=4))
    torch.set_num_threads(2)
    with views_in_threads(c, None, size=SIZE) as view_threads:
        seen.clear()
        view_threads(*make_views().float())
        assert view_threads.computing() == 2
        torch.set_num_threads(2)  # as of a checkpoint: the views take turns
        assert view_threads.computing() == 2
    assert seen == {"MainThread": 1, "view_0": 1}
    assert torch.get_num_threads() == 2  # the caller's, afterwards


def test_networks_that_draw_random_numbers_or_keep_other_state_are_computed_by_the_plain_step():
    torch.manual_seed(0)  # a weight whose spectral norm is found at once would keep no state
    for layer, fits in (
        (nn.Dropout(0.5), False),
        (nn.Dropout(0.0), True),
        (nn.BatchNorm2d(4, momentum=None), False),  # a cumulative mean depends on what came before
        (nn.BatchNorm2d(4, track_running_stats=False), True),
        (nn.InstanceNorm2d(4, track_running_stats=True), False),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), False),
        (nn.GroupNorm(2, 4), True),
    ):
        c = CStream(MomentumPair(Layered(layer)), BYOL(hidden=8, dim=4))
        with torch.random.fork_rng():
            before = statistics([c])
            with views_in_threads(c, None, size=SIZE) as view_threads:
                assert (view_threads is not None) == fits, layer
            assert all(map(torch.equal, before, statistics([c])))  # trying leaves no trace


class Layered(nn.Module):
    """A convolution, a layer under test, the mean."""

    features = 4

    def __init__(self, layer):
        super().__init__()
        self.convolution, self.layer = nn.Conv2d(3, 4, 1), layer

    def forward(self, x):
        feature_map = self.layer(self.convolution(x))
        return Encoded(feature_map, feature_map.mean((2, 3)))


class UsedTwice(nn.Module):
    """A batch norm that is applied twice, and one that is never."""

    def __init__(self):
        super().__init__()
        self.norm, self.unused = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(2 * self.norm(x) + 1)


class Scaled(nn.Module):
    """A factor that is a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, x):
        return x * self.factor


def frozen_norm():
    norm = nn.BatchNorm2d(4).eval()
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(2)
    return norm


def assert_as_plain_steps(layer, *, change=lambda _: None):
    """Two steps of a stream give what plain ones give; ``change`` is done to both once begun."""
    ours = CStream(MomentumPair(Layered(layer)), BYOL(hidden=8, dim=4)).double()
    plain = copy.deepcopy(ours)
    torch.set_num_threads(2)
    with views_in_threads(ours, None, size=SIZE) as view_threads:
        for stream in (ours, plain):
            change(stream)
        for number in range(2):
            want = plain_step(plain, None, make_views(number))
            got = care_loss(*view_threads(*make_views(number)))
            got.total.backward()
            torch.testing.assert_close(got.total, want.total)
    for parameter, reference in zip(trained([ours]), trained([plain]), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad)
    for buffer, reference in zip(statistics([ours]), statistics([plain]), strict=True):
        torch.testing.assert_close(buffer, reference)


@pytest.mark.parametrize("layer", [UsedTwice, frozen_norm])
def test_a_norm_may_be_used_twice_or_never_or_be_frozen(layer):
    assert_as_plain_steps(layer())


def test_buffers_that_a_checkpoint_restores_are_those_of_both_views():
    def restore(stream):
        for name, buffer in stream.named_buffers():
            if name.endswith("factor"):
                buffer.fill_(2)

    assert_as_plain_steps(Scaled(), change=restore)


def test_streams_of_the_callers_own_class_are_called_as_they_are():
    class Own(TStream):
        pass

    c, t = make_streams()
    with views_in_threads(c, Own(t.backbone, BYOL(hidden=24, dim=16)), size=SIZE) as view_threads:
        assert view_threads is None


def test_an_error_in_either_view_is_raised_when_both_have_ended():
    c, t = make_streams()
    torch.set_num_threads(2)
    with views_in_threads(c, t, size=SIZE) as view_threads:
        good, bad = make_views(), torch.zeros(6, 4, SIZE, SIZE, dtype=torch.float64)
        for views in ((good[0], bad), (bad, good[1])):
            with pytest.raises(Exception, match=r"channels|4"):
                view_threads(*views)
        care_loss(*view_threads(*good)).total.backward()  # and goes on


def test_a_t_stream_may_compute_in_float32_inside_of_bfloat16():
    c, t = (stream.float() for stream in make_streams())
    found = []
    t.backbone.online.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].dtype))
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        found.clear()
        view_threads = ViewThreads(c, t, threads=1, t_precision=precision)
        found.clear()
        with torch.autocast("cpu", torch.bfloat16):
            care_loss(*view_threads(*make_views().float())).total.backward()
        view_threads.close()
        assert found == [dtype] * len(found)


def test_a_t_stream_may_compute_in_bfloat16_beside_float32():
    c, t = (stream.float() for stream in make_streams())
    found = []
    convolution = next(m for m in t.backbone.online.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda _, inputs, output: found.append(output.dtype))
    for threads in (1, 2):
        torch.set_num_threads(1)
        view_threads = ViewThreads(c, t, threads=threads, t_precision="bf16")
        c_out, t_out = view_threads(*make_views().float())
        care_loss(c_out, t_out).total.backward()
        view_threads.close()
        assert c_out.online[0].dtype == torch.float32
    assert found == [torch.bfloat16] * 4


def test_parameters_that_are_added_have_a_gradient_each():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.Parameter(torch.rand(4, 4, 1, 1)) for _ in range(2))

        def forward(self, x):
            return nn.functional.conv2d(x, self.one + self.two)

    assert_as_plain_steps(Added())
