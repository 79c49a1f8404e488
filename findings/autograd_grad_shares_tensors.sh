#!/usr/bin/env bash
# torch 2.14.1: torch.autograd.grad may give one and the same tensor for two parameters.
#
# Where two parameters enter an operation as a sum, both gradients are equal, and torch hands out one
# tensor for both. One would guess that what belongs to two parameters are two tensors, as .backward()
# leaves them in .grad. Who accumulates in place, for example gradients of several views or micro-batches
# by torch._foreach_add_, then adds twice into the same memory: gradients are wrong without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

print("torch", torch.__version__)
first, second = (torch.zeros(3, requires_grad=True) for _ in range(2))


def loss():
    return ((first + second) * torch.tensor([1.0, 2.0, 3.0])).sum()


gradients = torch.autograd.grad(loss(), [first, second])
shared = gradients[0].data_ptr() == gradients[1].data_ptr()
print("autograd.grad: one tensor for two parameters:", shared)

sums = list(gradients)  # what a plain accumulation keeps of the first micro-batch
torch._foreach_add_(sums, list(torch.autograd.grad(loss(), [first, second])))
print("two equal micro-batches accumulated in place:", sums[0].tolist(), "where 2, 4, 6 are right")

loss().backward()
apart = first.grad.data_ptr() != second.grad.data_ptr()
print("backward(): a tensor each:", apart)
assert shared, "autograd.grad gives a tensor each now"
assert sums[0].tolist() == [3.0, 6.0, 9.0], "accumulation in place is not doubled any more"
assert apart, "backward() shares tensors now"
PYTHON
