#!/usr/bin/env bash
# torch 2.14.1: torch.onnx.export writes the weights into a second file, also the 864 bytes of a tiny network.
#
# One would guess that the file named is the model: so it was with the exporter that was the default until torch 2.8, and
# ONNX needs other files only above the 2 GB of a protobuf. Now `encoder.onnx` has the graph alone and `encoder.onnx.data`
# beside it the weights; nothing is printed. Who uploads, renames or hashes the file that was asked for has a model without
# weights, which onnxruntime refuses where it is loaded, often on another machine. Writing to a buffer, or
# external_data=False, gives one file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
import shutil
from pathlib import Path
import onnxruntime
import torch
from torch import nn

print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
images = (torch.zeros(2, 3, 16, 16),)
torch.onnx.export(network, images, "encoder.onnx", verbose=False)
torch.onnx.export(network, images, "alone.onnx", verbose=False, external_data=False)
sizes = {file.name: file.stat().st_size for file in sorted(Path().glob("*.onnx*"))}
print("files:", sizes)
assert {*sizes} == {"encoder.onnx", "encoder.onnx.data", "alone.onnx"}

Path("elsewhere").mkdir()
shutil.copy("encoder.onnx", "elsewhere")
onnxruntime.InferenceSession("encoder.onnx")
onnxruntime.InferenceSession("alone.onnx")
try:
    onnxruntime.InferenceSession("elsewhere/encoder.onnx")
    refused = False
except Exception as error:
    refused = True
    print("copied alone:", type(error).__name__)
assert refused
PYTHON
