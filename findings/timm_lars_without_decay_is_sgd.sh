#!/usr/bin/env bash
# timm 1.0.31: Lars adapts no step where the weight decay is 0, and where it is not, divides by another norm than BYOL.
#
# LARS scales a weight's step by ‖w‖ / ‖g + β·w‖ in the code of BYOL, MoCo v3 and Barlow Twins. One would guess that
# timm's does so, and that β = 0 is no special case. It divides by ‖g‖ + β·‖w‖, which is the same only where both
# point one way, and with β = 0 its steps are those of plain SGD, a thousand times as long, unless always_adapt=True.
# It matters to whoever trains BYOL or SimCLR by it, or tries a run without weight decay: the rate means something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
import torch
from timm.optim import Lars

print("timm", version("timm"))
torch.manual_seed(0)
weight, gradient = torch.randn(2, 8, 8).unbind()


def step(decay, **options):
    """How far one step at rate 1 moves the weight."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient.clone()
    Lars([parameter], lr=1.0, momentum=0.0, weight_decay=decay, trust_coeff=0.001, **options).step()
    return (weight - parameter.detach()).norm().item()


decayed = gradient + 0.5 * weight
formula = 0.001 * weight.norm().item()  # ‖w‖ / ‖g + β·w‖ times ‖g + β·w‖
timms = 0.001 * (weight.norm() * decayed.norm() / (gradient.norm() + 0.5 * weight.norm())).item()
print(f"β = 0.5: a step of {step(0.5):.5f}; by the papers' formula {formula:.5f}")
print(f"β = 0: a step of {step(0.0):.5f}; always_adapt {step(0.0, always_adapt=True):.5f}")
assert abs(step(0.5) - timms) < 1e-6 < abs(step(0.5) - formula)
assert abs(step(0.0) - gradient.norm().item()) < 1e-5, "it adapts without decay now"
assert abs(step(0.0, always_adapt=True) - formula) < 1e-6
PYTHON
