#!/usr/bin/env bash
# lightly 1.6.0: the queue of NTXentLoss (MoCo) is in no state_dict, so a training that resumes starts with random keys.
#
# A queue decides the loss of the next thousand steps, and MoCo's own code registers it as a buffer that is saved. One
# would guess the same here: it moves with .to(device) as buffers do. It is registered as not persistent. A
# checkpoint of model, loss and optimizer loads with strict=True and without a word; the next loss is that of another
# queue. It matters to whoever compares resumed runs, or resumes often, as on preemptible machines.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lightly==1.6.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import torch
from lightly.loss import NTXentLoss

print("lightly", version("lightly"))
torch.manual_seed(0)
queries, keys = torch.randn(2, 8, 16).unbind()
queries.requires_grad_()
first = NTXentLoss(temperature=0.2, memory_bank_size=(32, 16))
for _ in range(4):  # as many keys as the queue holds
    first(queries, keys)
resumed = NTXentLoss(temperature=0.2, memory_bank_size=(32, 16))
resumed.load_state_dict(first.state_dict(), strict=True)
print("state_dict:", dict(first.state_dict()))
with torch.no_grad():
    before, after = first(queries, keys).item(), resumed(queries, keys).item()
print(f"the next loss: {before:.4f} going on, {after:.4f} resumed")
assert not first.state_dict(), "the queue is saved now"
assert abs(before - after) > 0.01, "a resumed training goes on now"
PYTHON
