import math
import pytest
import torch
from flat import gathered
from naive import cosine, random_embeddings
from small_runs import SETTINGS, make_streams
from care import CareError, MoCoV2
from care.train import pretrain


def naive_contrast(queries, keys, queue, temperature):
    """Mean of −log softmax, image by image."""
    terms = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(cosine(query, key) / temperature)
        negatives = [math.exp(cosine(query, earlier) / temperature) for earlier in queue]
        terms.append(-math.log(positive / (positive + sum(negatives))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_loss_is_that_of_the_paper_in_the_directions_that_count(symmetric):
    criterion = MoCoV2(dim=7, queue=20, temperature=0.3, symmetric=symmetric).criterion().double()
    online, target = random_embeddings(1), random_embeddings(2)
    queue = torch.nn.functional.normalize(criterion.queue.keys, dim=1)
    criterion.queue.keys.copy_(queue)
    want = naive_contrast(online[0], target[1], queue, 0.3)
    if symmetric:
        want += naive_contrast(online[1], target[0], queue, 0.3)
    assert float(criterion(online, target)) == pytest.approx(want, rel=1e-9)


def test_the_loss_is_that_of_lightly_with_the_same_queue():
    loss = pytest.importorskip("lightly.loss")
    theirs = loss.NTXentLoss(temperature=0.2, memory_bank_size=(20, 7))
    ours = MoCoV2(dim=7, queue=20, symmetric=False).criterion()
    theirs.memory_bank.bank = ours.queue.keys.clone()
    for step in range(3):
        online, target = (random_embeddings(step + seed, dtype=torch.float32) for seed in (0, 9))
        query = online[0].requires_grad_()  # else their queue stays as it is
        got = ours((query, online[1]), target)
        torch.testing.assert_close(got, theirs(query, target[1]), rtol=1e-6, atol=1e-6)
        ours.after_step()
        torch.testing.assert_close(ours.queue.keys, theirs.memory_bank.bank)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_queue_holds_the_newest_keys_and_each_batch_replaces_the_oldest(symmetric):
    criterion = MoCoV2(dim=7, queue=30, symmetric=symmetric).criterion().double()
    newest = [*criterion.queue.keys.clone()]
    for step in range(5):
        online, target = random_embeddings(step), random_embeddings(100 + step)
        criterion(online, target)
        criterion.after_step()
        keys = [*target[0], *target[1]] if symmetric else [*target[1]]
        newest = newest[len(keys) :] + [key / key.norm() for key in keys]
    start = int(criterion.queue.taken) % 30
    in_order = torch.cat((criterion.queue.keys[start:], criterion.queue.keys[:start]))
    torch.testing.assert_close(in_order, torch.stack(newest))


def test_the_keys_of_a_step_are_queued_after_it_those_of_all_its_parts_once():
    criterion = MoCoV2(dim=7, queue=20, symmetric=False).criterion().double()
    before = criterion.queue.keys.clone()
    for seed in (1, 2, 1, 2):  # a step of two parts that overflowed in float16 is taken again
        criterion(random_embeddings(seed), random_embeddings(10 + seed))
        assert torch.equal(criterion.queue.keys, before)
    criterion.after_step(parts=2)
    keys = torch.cat([random_embeddings(10 + seed)[1] for seed in (1, 2)])
    unit = torch.nn.functional.normalize(keys, dim=1)
    torch.testing.assert_close(criterion.queue.keys[:10], unit)
    assert torch.equal(criterion.queue.keys[10:], before[10:])
    criterion.after_step()
    assert int(criterion.queue.taken) == 10


def test_a_loop_of_ones_own_queues_all_parts_of_a_step_by_its_update():
    c, _ = make_streams(objective=MoCoV2(hidden=8, dim=4, queue=16))
    for seed in (0, 1):
        c.criterion(random_embeddings(seed, 4, 4), random_embeddings(seed, 4, 4))
    c.update(0.9, parts=2)
    assert int(c.criterion.queue.taken) == 16


def test_a_batch_that_does_not_divide_the_queue_is_refused_before_training(data, tmp_path):
    streams = make_streams(objective=MoCoV2(hidden=8, dim=4, queue=24))
    message = r"queue of 24 keys does not hold whole batches of 16; wanted a queue of 16 or 32"
    with pytest.raises(CareError, match=message):
        pretrain(data, tmp_path / "run", *streams, **gathered(SETTINGS))
    assert not (tmp_path / "run").exists()


def test_keys_are_those_of_the_momentum_encoder_after_its_update():
    c, _ = make_streams(objective=MoCoV2(hidden=8, dim=4, queue=8))
    views = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in c.online_parameters():
            parameter.add_(0.01)
    c.update(0.5)
    out = c(*views)
    c.criterion(out.online, out.target)
    c.update(1)
    keys = torch.nn.functional.normalize(torch.cat(out.target), dim=1)
    torch.testing.assert_close(c.criterion.queue.keys, keys)
