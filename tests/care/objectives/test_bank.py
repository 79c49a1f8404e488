"""A bank of an embedding of each image, and the contrast with it."""

import math
import pytest
import torch
from naive import random_embeddings
from care import CareError
from care.objectives.bank import Bank, BankContrast, Negatives

IMAGES = 12
SAMPLES = torch.tensor([7, 0, 3, 11, 4])


def bank_rows(seed=4):
    rows = torch.randn(
        IMAGES, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return torch.nn.functional.normalize(rows, dim=1)


def cosines_of(embedding, rows, own, negatives):
    """That with its own place, and those with all others that were drawn."""
    direction = embedding / embedding.norm()
    others = [float(direction @ rows[number]) for number in negatives if number != own]
    return float(direction @ rows[own]), others


def naive_softmax(embeddings, rows, samples, negatives, temperature):
    losses = []
    for embedding, own in zip(embeddings, samples, strict=True):
        cosine, others = cosines_of(embedding, rows, own, negatives)
        weights = [math.exp(value / temperature) for value in (cosine, *others)]
        losses.append(-math.log(weights[0] / sum(weights)))
    return sum(losses) / len(losses)


def naive_nce(embeddings, rows, samples, negatives, temperature, partition):
    """Eq. 6 of Wu et al., with even noise of k · 1/n."""
    noise = len(negatives) / len(rows)
    losses = []
    for embedding, own in zip(embeddings, samples, strict=True):
        cosine, others = cosines_of(embedding, rows, own, negatives)
        share = math.exp(cosine / temperature) / partition
        loss = -math.log(share / (share + noise))
        for value in others:
            share = math.exp(value / temperature) / partition
            loss -= math.log(noise / (share + noise))
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("negatives", [[2, 7, 7, 9], list(range(IMAGES))])
def test_the_softmax_is_that_over_the_place_and_the_negatives(negatives):
    (embeddings, _), rows = random_embeddings(1), bank_rows()
    contrast = BankContrast(0.3, "softmax")
    got = contrast(embeddings, rows, SAMPLES, torch.tensor(negatives))
    want = naive_softmax(embeddings, rows, SAMPLES.tolist(), negatives, 0.3)
    assert float(got) == pytest.approx(want, rel=1e-9)


def test_the_estimation_is_that_of_its_paper_with_the_partition_of_the_first_batch():
    rows = bank_rows()
    negatives = [1, 2, 5, 6, 8, 9]  # of the batch there is none
    contrast = BankContrast(0.3, "nce").double()
    first, second = random_embeddings(1)
    directions = torch.nn.functional.normalize(first, dim=1)
    own = (directions * rows[SAMPLES]).sum(1, keepdim=True)
    weights = torch.exp(torch.cat((own, directions @ rows[negatives].T), 1) / 0.3)
    partition = float(weights.mean()) * IMAGES
    for embeddings in (first, second):
        got = contrast(embeddings, rows, SAMPLES, torch.tensor(negatives))
        want = naive_nce(embeddings, rows, SAMPLES.tolist(), negatives, 0.3, partition)
        assert float(got) == pytest.approx(want, rel=1e-6)


def test_an_image_of_the_batch_that_was_drawn_is_no_negative_of_itself():
    rows = bank_rows()
    (embeddings, _) = random_embeddings(1)
    contrast = BankContrast(0.3, "nce").double()
    contrast.partition.fill_(50.0)
    got = contrast(embeddings, rows, SAMPLES, torch.tensor([7, 2, 9]))
    want = naive_nce(embeddings, rows, SAMPLES.tolist(), [7, 2, 9], 0.3, 50.0)
    assert float(got) == pytest.approx(want, rel=1e-6)


def drawn(count, images, seed, step):
    """The negatives of a step, after as many steps."""
    negatives = Negatives(count)
    negatives.seed.fill_(seed)
    for _ in range(step):
        negatives.after_step()
    return negatives.draw(images)


def test_negatives_depend_on_seed_and_step_and_all_are_taken_of_few():
    want = drawn(1000, 5000, 3, 8)
    torch.rand(4)
    assert torch.equal(drawn(1000, 5000, 3, 8), want)
    assert not torch.equal(drawn(1000, 5000, 3, 9), want)
    assert not torch.equal(drawn(1000, 5000, 4, 8), want)
    steps = torch.stack([drawn(1000, 2000, 0, step) for step in range(200)])
    counts = steps.flatten().bincount()
    assert abs(float(counts.double().mean()) - 100) < 1
    assert float(counts.double().std()) == pytest.approx(10, rel=0.1)
    assert drawn(1000, IMAGES, 0, 0).tolist() == list(range(IMAGES))


def test_places_of_a_batch_move_towards_it_and_stay_of_length_1():
    bank = Bank(IMAGES, 7, momentum=0.25).double()
    before = bank.embeddings.clone()
    (embeddings, _) = random_embeddings(2)
    units = torch.nn.functional.normalize(embeddings, dim=1)
    bank.renew(SAMPLES, units)
    for number in range(IMAGES):
        want = before[number]
        if number in SAMPLES:
            row = SAMPLES.tolist().index(number)
            want = 0.25 * before[number] + 0.75 * units[row]
            want = want / want.norm()
        torch.testing.assert_close(bank.embeddings[number], want)


@pytest.mark.parametrize("images", [11, 13])
def test_a_set_of_another_number_of_images_is_refused(images):
    with pytest.raises(CareError, match=f"a bank of 12 images .* this one has {images}; wanted"):
        Bank(IMAGES, 7).check(images)
