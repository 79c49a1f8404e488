#!/usr/bin/env bash
# wids 0.1.11: of a member's name it reads the 100 bytes of the plain header field, in every tar format.
#
# Names of more than 100 bytes are ordinary: a folder and a file of 60 letters each. Python's tarfile, GNU tar and
# webdataset read them in each of the three formats. wids opens the set, says the right length, and then
# - of GNU and PAX archives fails at the first access by an IndexError, after a warning about a name without a dot;
# - of USTAR archives, whose header has the folder in a field of its own, gives a key *without its folder*, and no word:
#   two samples of one file name in different folders have the same key.
# One would guess that an index whose lengths agree can be read, or that a reader refuses what it cannot name. It
# matters to whoever writes shards for wids' random access: member names must be kept within 100 bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wids==0.1.11 torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io
import json
import tarfile
from importlib.metadata import version
import wids

print("wids", version("wids"))
LONG = "c" * 60 + "/" + "n" * 60
FORMATS = {"GNU": tarfile.GNU_FORMAT, "PAX": tarfile.PAX_FORMAT, "USTAR": tarfile.USTAR_FORMAT}


def first_key(form, name):
    """The key that wids gives the first of two samples, or the name of the error."""
    shard = f"{form}-{len(name)}.tar"
    with tarfile.open(shard, "w", format=FORMATS[form]) as tar:
        for number in range(2):
            info = tarfile.TarInfo(f"{name}{number}.txt")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    with tarfile.open(shard) as tar:
        assert tar.getnames()[0] == f"{name}0.txt"
    shardlist = [{"url": shard, "nsamples": 2, "filesize": 1}]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": shard}
    with open("index.json", "w") as file:
        json.dump(index | {"shardlist": shardlist}, file)
    data = wids.ShardListDataset("index.json", cache_dir=f"cache-{shard}", keep=True)
    assert len(data) == 2
    try:
        return data[0]["__key__"]
    except IndexError as error:
        return f"IndexError: {error}"


for form in FORMATS:
    seen = first_key(form, "short"), first_key(form, LONG)
    print(form, seen)
    assert seen[0] == "short0"
    lost = "n" * 60 + "0"
    assert seen[1] == (lost if form == "USTAR" else "IndexError: list index out of range")
PYTHON
