import math
import pytest
import torch
from naive import random_embeddings
from care import SwAV
from care.objectives.sinkhorn import sinkhorn


def naive_sinkhorn(scores, epsilon, rounds):
    """As the paper's Algorithm 1, number by number."""
    weights = [[math.exp(float(score) / epsilon) for score in row] for row in scores]
    images, prototypes = len(weights), len(weights[0])
    for _ in range(rounds):
        for k in range(prototypes):
            total = sum(row[k] for row in weights) * prototypes
            for row in weights:
                row[k] /= total
        for row in weights:
            total = sum(row) * images
            row[:] = [weight / total for weight in row]
    return [[weight * images for weight in row] for row in weights]


def naive_loss(views, prototypes, epsilon=0.05, rounds=3, temperature=0.1):
    units = [[x / x.norm() for x in view] for view in views]
    scores = [[[float(x @ p) for p in prototypes] for x in view] for view in units]
    assigned = [naive_sinkhorn(view, epsilon, rounds) for view in scores]
    losses = []
    for target in range(2):
        others = [scores[view] for view in range(len(views)) if view != target]
        losses += [cross_entropy(view, assigned[target], temperature) for view in others]
    return sum(losses) / len(losses)


def cross_entropy(scores, assigned, temperature):
    total = 0.0
    for row, weights in zip(scores, assigned, strict=True):
        exponentials = [math.exp(score / temperature) for score in row]
        log_shares = [math.log(value / sum(exponentials)) for value in exponentials]
        total -= sum(map(math.prod, zip(weights, log_shares, strict=True)))
    return total / len(scores)


def test_assignments_are_those_of_the_algorithm_and_prototypes_weigh_alike():
    scores = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = torch.tensor(naive_sinkhorn(scores, 0.05, 3), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores), want)
    converged = sinkhorn(scores, epsilon=0.5, rounds=100)
    torch.testing.assert_close(converged.sum(0), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(converged.sum(1), torch.ones(6, dtype=torch.float64))


def test_nothing_over_or_underflows_however_hard_the_assignments():
    scores = torch.tensor([[1.0, -1.0], [1.0, -1.0]]).bfloat16()
    assigned = sinkhorn(scores, epsilon=0.01)
    assert assigned.dtype == torch.float32
    torch.testing.assert_close(assigned, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("views", [2, 3, 6])
def test_the_loss_is_that_of_the_paper(views):
    criterion = SwAV(dim=7, prototypes=6).criterion().double()
    online = random_embeddings(1, views=views)
    want = naive_loss(online, criterion.prototypes.detach())
    assert float(criterion(online, online[:2]).detach()) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("small", [0, 4])
def test_the_loss_is_that_of_lightly_with_the_same_prototypes(small):
    loss = pytest.importorskip("lightly.loss")
    criterion = SwAV(dim=7, prototypes=6).criterion()
    online = random_embeddings(1, dtype=torch.float32, views=2 + small)
    scores = [torch.nn.functional.normalize(x, dim=1) @ criterion.prototypes.T for x in online]
    theirs = loss.SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    want = theirs(scores[:2], scores[2:]).squeeze()
    torch.testing.assert_close(criterion(online, online[:2]), want, rtol=1e-6, atol=1e-6)


def test_small_crops_fill_no_queue():
    criterion = SwAV(dim=7, prototypes=6, queue=10).criterion().double()
    views = random_embeddings(3, views=4)
    criterion(views, views[:2])
    criterion.after_step()
    for queue, view in zip(criterion.queues, views[:2], strict=True):
        assert torch.equal(queue.keys[:5], torch.nn.functional.normalize(view, dim=1))


def take_steps(criterion, steps, lr=0.5):
    for step in range(steps):
        criterion.zero_grad()
        criterion(random_embeddings(step), random_embeddings(step)).backward()
        torch.optim.SGD(criterion.parameters(), lr=lr, weight_decay=0.1).step()
        criterion.after_step()


def test_prototypes_are_of_length_1_and_rest_at_first():
    criterion = SwAV(dim=7, prototypes=6, frozen_steps=2).criterion().double()
    initial = criterion.prototypes.detach().clone()
    torch.testing.assert_close(initial.norm(dim=1), torch.ones(6, dtype=torch.float64))
    take_steps(criterion, 2)
    torch.testing.assert_close(criterion.prototypes.detach(), initial)
    take_steps(criterion, 1)
    assert not torch.allclose(criterion.prototypes, initial, atol=1e-3)
    torch.testing.assert_close(criterion.prototypes.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_a_full_queue_shares_the_prototypes_with_the_batch():
    criterion = SwAV(dim=7, prototypes=6, queue=10, queue_from=1).criterion().double()
    batches = [random_embeddings(seed) for seed in range(4)]
    for batch in batches[:3]:
        want = naive_loss(batch, criterion.prototypes.detach())
        assert float(criterion(batch, batch).detach()) == pytest.approx(want, rel=1e-9)
        criterion.after_step()
    # the first batch came before queue_from, the next two fill the queue
    last = batches[3]
    prototypes = criterion.prototypes.detach()
    scores = [torch.nn.functional.normalize(view, dim=1) @ prototypes.T for view in last]
    want = 0.0
    for predicted, target in ((0, 1), (1, 0)):
        earlier = torch.cat([batch[target] for batch in batches[1:3]])
        queued = torch.nn.functional.normalize(earlier, dim=1) @ prototypes.T
        assigned = sinkhorn(torch.cat((queued, scores[target])))[-5:]
        log_shares = (scores[predicted] / 0.1).log_softmax(1)
        want -= float((assigned * log_shares).sum(1).mean()) / 2
    assert float(criterion(last, last).detach()) == pytest.approx(want, rel=1e-9)
