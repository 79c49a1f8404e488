#!/usr/bin/env bash
# lightly 1.6.0: NTXentLoss called once for each direction has each image's own key among the second's negatives.
#
# MoCo is often symmetrised as BYOL is: (loss(q1, k2) + loss(q2, k1)) / 2 with one loss object, as in lightly's own
# Imagenette benchmark. One would guess that both directions see the queue of earlier batches. But each call queues its
# keys at once: the second call has k2 of the same images as negatives, and pushes q2 away from the view that it
# stands for itself. Order changes the result, and no direction alone shows it. It matters to whoever writes symmetric
# MoCo, or compares with it: keep both keys aside, and queue them after both losses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lightly==1.6.0 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import copy
from importlib.metadata import version
import torch
from lightly.loss import NTXentLoss

print("lightly", version("lightly"))
torch.manual_seed(0)
image = torch.randn(8, 16)  # both views of an image embed alike, as after some training
view1, view2 = (image + 0.1 * torch.randn(8, 16) for _ in range(2))
query1, query2 = (view.clone().requires_grad_() for view in (view1, view2))
criterion = NTXentLoss(temperature=0.2, memory_bank_size=(256, 16))
alone = copy.deepcopy(criterion)(query2, view1).item()
criterion(query1, view2)
second = criterion(query2, view1).item()
print(f"loss of the second direction: {alone:.3f} with the queue of earlier batches, {second:.3f} after the first")
own = torch.nn.functional.normalize(view2, dim=1)
cosines = (criterion.memory_bank.bank[:8] * own).sum(1)
print("cosines of the queue's newest keys with the queries' own views:", [round(c, 3) for c in cosines.tolist()])
assert second > alone, "the second direction does not see the first one's keys any more"
assert bool((cosines > 0.999).all())
PYTHON
