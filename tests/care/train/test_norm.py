import pytest
import torch
from processes import together
from torch import nn
from care.train import ranks
from care.train.norm import CPUSyncNorm, synchronise

SHAPES = {nn.BatchNorm1d: (12, 5), nn.BatchNorm2d: (12, 5, 3, 4), nn.BatchNorm3d: (12, 5, 2, 3, 2)}


def make(kind, **options):
    torch.manual_seed(0)
    norm = kind(5, **options).double()
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def used(norm, x, towards):
    """Output, the gradients of ⟨output, towards⟩, and the running statistics after two batches."""
    x = x.clone().requires_grad_()
    norm(x.detach() * 2 + 1)
    out = norm(x)
    (out * towards).sum().backward()
    gradients = [x.grad, *(p.grad for p in norm.parameters())]
    return [out.detach(), *gradients], [buffer.clone() for buffer in norm.buffers()]


@pytest.mark.parametrize(
    ("options", "world"),
    [({}, 2), ({}, 3), ({"affine": False}, 3), ({"momentum": None}, 2)],
    ids=["2", "3", "without weights", "cumulative"],
)
@pytest.mark.parametrize("kind", SHAPES)
def test_on_many_processes_it_is_torchs_on_the_whole_batch(kind, options, world):
    generator = torch.Generator().manual_seed(1)
    x, towards = (
        torch.randn(*SHAPES[kind], dtype=torch.float64, generator=generator) * 3 + 1
        for _ in range(2)
    )
    (out, grad, *parameters), buffers = used(make(kind, **options), x, towards)

    def work():
        norm = make(kind, **options)
        synchronise(norm)
        assert isinstance(norm, CPUSyncNorm)
        return used(norm, x.chunk(world)[ranks.rank()], towards.chunk(world)[ranks.rank()])

    found = together(world, work)
    torch.testing.assert_close(torch.cat([one[0][0] for one in found]), out)
    torch.testing.assert_close(torch.cat([one[0][1] for one in found]), grad)
    for number, parameter in enumerate(parameters):
        torch.testing.assert_close(sum(one[0][2 + number] for one in found), parameter)
    for one in found:
        torch.testing.assert_close(one[1], buffers)


def test_in_eval_mode_it_uses_what_it_has_seen():
    x = torch.randn(4, 5, 2, 2, dtype=torch.float64)

    def work():
        norm = make(nn.BatchNorm2d).eval()
        synchronise(norm)
        return norm(x).detach()

    expected = make(nn.BatchNorm2d).eval()(x)
    for out in together(2, work):
        assert torch.equal(out, expected)


def test_alone_nothing_changes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    synchronise(model)
    assert type(model[1]) is nn.BatchNorm2d


def test_names_of_the_state_stay_and_norms_that_cannot_be_synchronised_are_named(capfd):
    class OwnNorm(nn.BatchNorm2d):
        pass

    def work():
        model = nn.Sequential(nn.BatchNorm2d(3), OwnNorm(3))
        names = list(model.state_dict())
        synchronise(model)
        return list(model.state_dict()) == names, type(model[1]) is OwnNorm

    assert together(2, work) == [(True, True)] * 2
    assert (
        capfd.readouterr().err.count(
            "each process keeps the statistics of its own images in OwnNorm"
        )
        == 1
    )
