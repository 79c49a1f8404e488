"""Evaluations as rows of a results.json, made up."""

import math

DIGESTS = {"encoder": "e" * 64, "train": "a" * 64, "val": "b" * 64}


def evaluation(task="kNN", encoder="runs/r50", **more):
    row = {
        "task": task,
        "encoder": encoder,
        "protocol": "k 20",
        "settings": {"size": 224},
        "digests": DIGESTS,
        "seed": 0,
        "trials": 1,
    }
    return row | {"versions": {"care": "0.1.0", "torch": "2.11"}, "chosen": {}} | more


def row(task, encoder, value, deviations=None, measure="top1", **more):
    """Deviations are those of the draws from the value."""
    result = {"task": task, "encoder": encoder, measure: value, "protocol": "k 20"}
    if deviations is not None:
        result["resampled"] = [value + deviation for deviation in deviations]
    return result | more


def pair(task, points, half_width, other="random initialisation"):
    """Two rows whose difference has the half-width of its interval to the last digit shown."""
    # two draws, ± spread, have the standard deviation √2 · spread
    spread = half_width / 1.96 / math.sqrt(2)
    return [row(task, other, 40.0, [0.0, 0.0]), row(task, "CARE", 40.0 + points, [-spread, spread])]


def drawn_values(generator, count, base=50.0):
    return [base + generator.gauss(0, 2) for _ in range(count)]
