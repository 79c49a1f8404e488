#!/usr/bin/env bash
# torchmetrics 1.9.0: of the same predictions its mean IoU is 0.883, 0.725 or 0.589, by the class that is asked.
#
# Two pictures of two classes, of which the second has a small object that is missed. Papers on segmentation (Pascal VOC,
# Cityscapes, FCN) count the pixels of all pictures in one table and take each class's IoU from that: 0.883 here, which is
# MulticlassJaccardIndex(average="macro"). torchmetrics.segmentation.MeanIoU, whose name one would look for, takes the IoU of
# each picture and averages those: 0.725, as a missed object of ten pixels weighs as much as one of fifty that is found. With
# a third class that occurs nowhere, "macro" leaves it out, but average=None gives it a 0 that looks like a figure: the mean
# over its vector is 0.589.
# One would guess that mean IoU is one thing in one library. It matters to whoever compares with a paper, or with
# `care evaluate segment`, which counts all pictures in one table and leaves out classes that do not occur.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchmetrics==1.9.0 torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

print("torchmetrics", version("torchmetrics"))
truth = torch.zeros(2, 10, 10, dtype=torch.long)
truth[0, :5] = 1
truth[1, :1] = 1
found = truth.clone()
found[1, :1] = 0
by_hand = []
for label in range(2):
    overlap = ((found == label) & (truth == label)).sum()
    union = ((found == label) | (truth == label)).sum()
    by_hand.append(float(overlap / union))
print("all pixels in one table, by hand:", by_hand, "mean", sum(by_hand) / 2)
macro = MulticlassJaccardIndex(num_classes=3, average="macro")(found, truth).item()
each = MulticlassJaccardIndex(num_classes=3, average=None)(found, truth)
of_images = MeanIoU(num_classes=2, input_format="index")
for number in range(2):  # in batches of one picture; in one batch it is the same
    of_images.update(found[number : number + 1], truth[number : number + 1])
print("MulticlassJaccardIndex, macro:", round(macro, 3))
print("MeanIoU:", round(of_images.compute().item(), 3))
print("MulticlassJaccardIndex of each class:", each.tolist(), "mean", round(each.mean().item(), 3))
assert abs(macro - sum(by_hand) / 2) < 1e-6
assert abs(of_images.compute().item() - 0.725) < 1e-6
assert each[2] == 0
assert abs(each.mean().item() - 0.589) < 1e-3
PYTHON
