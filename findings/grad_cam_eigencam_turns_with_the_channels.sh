#!/usr/bin/env bash
# grad-cam 1.5.7: EigenCAM of the same network, its channels in another order, shows the opposite places.
#
# EigenCAM is the feature map along its first principal direction. A direction has no sign: the sign of the singular
# vector is whatever the decomposition returns, and the package keeps the half that happens to be positive. One would
# guess that a map depends on what a network computes. Here one convolution is written with its channels reordered, the
# next layer alike, so that every output is equal; two of eight such orders turn the map around. It matters where maps
# of several encoders stand side by side, as in papers' figures: one may look at the objects and the other past them by
# the order of the channels alone. A fixed sign, such as that of the mean activation, has to be chosen by whoever compares.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grad-cam==1.5.7 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import numpy as np
import torch
from pytorch_grad_cam import EigenCAM
from torch import nn

print("grad-cam", version("grad-cam"))
torch.manual_seed(0)
first, last = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 2)
image = torch.rand(1, 3, 24, 24)
image[:, :, 6:14, 6:14] += 2  # an object


class Network(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 2)
        self.first.load_state_dict({"weight": first.weight[order], "bias": first.bias[order]})
        self.last.load_state_dict({"weight": last.weight[:, order], "bias": last.bias})

    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))


outputs, maps = [], []
for seed in range(8):
    network = Network(torch.randperm(16, generator=torch.Generator().manual_seed(seed))).eval()
    outputs.append(network(image).detach())
    with EigenCAM(network, [network.first]) as cam:
        maps.append(cam(image, None)[0].ravel())
print("outputs differ by at most", max((output - outputs[0]).abs().max().item() for output in outputs))
correlations = np.corrcoef(maps)[0].round(2)
print("correlation of each map with the first:", correlations)
assert all(torch.allclose(output, outputs[0], atol=1e-6) for output in outputs)
assert correlations.max() == 1 and correlations.min() < -0.4
PYTHON
