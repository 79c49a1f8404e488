#!/usr/bin/env bash
# torch 2.14.1: a running mean that is changed between forward and backward pass stops the backward pass,
# though batch norm in train mode never reads it, and though a second forward pass changes it, too.
#
# The backward pass keeps the running statistics with the version that they had. The layer's own update
# does not count as a new version; anybody else's in-place update does ("modified by an inplace operation").
# One would guess that both count or none: in training the gradient depends on the batch's statistics alone.
# It matters to whoever corrects, averages or merges statistics before the backward pass: several views in
# threads, statistics across processes, precise batch norm. An update through .data is not counted, and
# gives the same gradient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)


def gradient(between):
    torch.manual_seed(0)
    norm, x = torch.nn.BatchNorm1d(4).train(), torch.randn(8, 4, requires_grad=True)
    loss = norm(x).pow(3).sum()
    between(norm)
    loss.backward()
    return x.grad


alone = gradient(lambda norm: None)
again = gradient(lambda norm: norm(torch.randn(8, 4)))
print("a second forward pass, which updates the running mean: fine, same gradient:", torch.equal(alone, again))
try:
    gradient(lambda norm: norm.running_mean.mul_(0.9))
    counted = False
except RuntimeError as error:
    counted = "inplace operation" in str(error)
print("our own update of the running mean stops the backward pass:", counted)
through_data = gradient(lambda norm: norm.running_mean.data.mul_(0.9))
print("the same update through .data: same gradient:", torch.equal(alone, through_data))
assert torch.equal(alone, again)
assert counted, "an update of the running statistics is not counted any more"
assert torch.equal(alone, through_data)
PYTHON
