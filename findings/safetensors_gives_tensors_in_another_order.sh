#!/usr/bin/env bash
# safetensors 0.8.0: what is loaded has another order than what was saved: wider types first, then by name.
#
# A dictionary of tensors is written with its entries sorted by the width of their type, widest first, then by their names
# as text, so that all lie aligned; load_file gives them in that order, the header's, and safe_open().keys() in a third: by name.
# torch.save, numpy's npz and JSON keep a dictionary's order. Whoever pairs what was loaded with something by position gets
# other pairs without an error where shapes agree: an optimizer's slots "0" … "11" come back as 0, 1, 10, 11, 2, …, and a
# single float64 among them comes first of all. One would guess that a format with a JSON header keeps its order.
# It matters to checkpoints: names alone may say what belongs together, as CARE's do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import struct
from importlib.metadata import version
import numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

print("safetensors", version("safetensors"))


def orders(tensors):
    """The names as they are loaded, opened, and in the file's header."""
    save_file(tensors, "a.safetensors")
    with safe_open("a.safetensors", framework="numpy") as opened:
        keys = list(opened.keys())
    with open("a.safetensors", "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = list(json.loads(file.read(length)))
    return list(load_file("a.safetensors")), keys, header


slots = {str(number): numpy.zeros(2, numpy.float32) for number in range(12)}
loaded, opened, header = orders(slots)
print("saved", *slots, "-> loaded", *loaded, "| keys()", *opened, "| header", *header)
assert loaded == header == sorted(slots)
mixed = {
    "small": numpy.zeros(2, numpy.uint8),
    "second": numpy.zeros(2, numpy.float32),
    "first": numpy.zeros(2, numpy.float32),
    "wide": numpy.zeros(2, numpy.float64),
}
loaded, opened, header = orders(mixed)
print("saved", *mixed, "-> loaded", *loaded, "| keys()", *opened, "| header", *header)
assert loaded == header == ["wide", "first", "second", "small"]
assert opened == sorted(mixed)
PYTHON
