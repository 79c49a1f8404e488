import torch
from processes import together
from care.train import ranks


def test_alone_everything_is_the_identity():
    x = torch.randn(3, 2)
    assert (ranks.rank(), ranks.world(), ranks.largest(1, -2.5)) == (0, 1, [1, -2.5])
    assert ranks.gathered(x) is x


def test_rows_are_gathered_in_rank_order_with_the_gradients_of_all_losses():
    rows = torch.arange(12, dtype=torch.float64).reshape(6, 2)

    def work():
        own = rows.chunk(3)[ranks.rank()].clone().requires_grad_()
        every = ranks.gathered(own)
        # process r's loss is (r + 1) · Σ x², so the sum of all is 6 · Σ x²
        ((ranks.rank() + 1) * every.square().sum()).backward()
        return every.detach(), own.grad, ranks.world()

    found = together(3, work)
    for every, _, world in found:
        assert torch.equal(every, rows)
        assert world == 3
    assert torch.equal(torch.cat([gradient for _, gradient, _ in found]), 12 * rows)


def test_the_largest_of_each_value():
    assert together(2, lambda: ranks.largest(ranks.rank(), -ranks.rank(), 0.5)) == [[1.0, 0.0, 0.5]] * 2
