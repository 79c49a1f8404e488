#!/usr/bin/env bash
# timm 1.0.31: VisionTransformer(weight_init="moco") draws the patch projection otherwise than MoCo v3, which freezes it.
#
# MoCo v3 trains ViTs stably by a patch projection that stays as it was drawn: uniform between ±√(6 / (3·p² + width)),
# bias 0. One would guess that the mode named after it draws that layer so. It does so for queries, keys and values and
# all other linear layers; the projection keeps the default of a convolution, ±√(1 / (3·p²)) with a random bias, narrower
# than MoCo's at ViT-S/16. It matters exactly there: what is frozen is never mended by training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import math
from importlib.metadata import version
import torch
from timm.models.vision_transformer import VisionTransformer

print("timm", version("timm"))
torch.manual_seed(0)
width, patch = 384, 16
model = VisionTransformer(
    patch_size=patch, embed_dim=width, depth=1, num_heads=12, num_classes=0, weight_init="moco"
)
projection, qkv = model.patch_embed.proj, model.blocks[0].attn.qkv
moco, default = math.sqrt(6 / (3 * patch**2 + width)), math.sqrt(1 / (3 * patch**2))
largest = projection.weight.abs().max().item()
print(f"patch projection: weights up to {largest:.4f}; MoCo v3's go to {moco:.4f}, a convolution's to {default:.4f}")
print(f"its largest bias: {projection.bias.abs().max().item():.4f}, where MoCo v3's is 0")
print(f"queries, keys, values: up to {qkv.weight.abs().max().item():.4f} of {math.sqrt(6 / (2 * width)):.4f}")
assert 0.99 * default < largest <= default
assert projection.bias.abs().max() > 0
assert 0.99 * math.sqrt(6 / (2 * width)) < qkv.weight.abs().max() <= math.sqrt(6 / (2 * width))
PYTHON
