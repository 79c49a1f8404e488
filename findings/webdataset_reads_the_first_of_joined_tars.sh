#!/usr/bin/env bash
# webdataset 1.0.2: of tars that were joined by `cat`, only the samples of the first are read, without a word.
#
# Shards are often made larger by `cat 0.tar 1.tar > all.tar`, and GNU tar lists all of such a file with
# --ignore-zeros only, or when they were joined by `tar -A`, which removes the empty blocks between. One would guess
# that a stream reader, which reads to the end of its pipe anyway, goes on behind the end mark or warns of bytes that it
# did not read. It matters because an epoch is then simply shorter: nothing counts the samples of a shard.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2 torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io
import shutil
import subprocess
import tarfile
from importlib.metadata import version
from pathlib import Path
import webdataset

print("webdataset", version("webdataset"))


def write(path, keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            info = tarfile.TarInfo(f"{key}.txt")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))


def keys(path):
    return [sample["__key__"] for sample in webdataset.WebDataset(path, shardshuffle=False)]


write("0.tar", ["a", "b"])
write("1.tar", ["c", "d", "e"])
Path("joined.tar").write_bytes(Path("0.tar").read_bytes() + Path("1.tar").read_bytes())
shutil.copy("0.tar", "appended.tar")
subprocess.run(["tar", "-A", "-f", "appended.tar", "1.tar"], check=True)
joined, appended = keys("joined.tar"), keys("appended.tar")
print("joined by cat:", joined)
print("joined by tar -A:", appended)
assert joined == ["a", "b"]
assert appended == ["a", "b", "c", "d", "e"]
PYTHON
