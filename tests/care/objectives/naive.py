"""Embeddings, and what is said of them by plain loops."""

import torch


def random_embeddings(seed, b=5, d=7, dtype=torch.float64, views=2):
    """Embeddings [b, d] of some views."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, d, generator=generator, dtype=dtype) * 3 for _ in range(views))


def cosine(x, y):
    return float((x * y).sum() / ((x * x).sum() * (y * y).sum()) ** 0.5)
