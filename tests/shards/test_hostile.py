"""Broken, odd and malicious files through the build, in a child with limits (nox -s hostile)."""

import csv
import json
import random
import resource
import shutil
import subprocess
import sys
import pytest
import shards

pytestmark = pytest.mark.hostile
# among the odd images some have more than eight bits, and values of very different sizes
EACH_ITS_OWN = "1%,99%"


def build(src, dest, **options):
    """Exit code and output of the command line, in two gigabytes and ten minutes of CPU."""

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (600, 600))

    command = [sys.executable, "-c", "from flows.cli import main; main()"]
    command += ["shards", "build", str(src), str(dest), "--json"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    child = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limits, timeout=900, check=False
    )
    return child.returncode, child.stdout, child.stderr


@pytest.fixture(scope="module")
def malformed(unpacked):
    root = unpacked("malformed.tar") / "malformed"
    with (root / "expected.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    return root, {row["file"]: row["pil13_outcome"] == "ok" for row in rows}


@pytest.mark.parametrize("source", ["folder", "csv", "tar"])
def test_every_malformed_file_ends_as_its_class_demands(malformed, tmp_path, source):
    root, fine = malformed
    if source == "csv":
        src = tmp_path / "list.csv"
        src.write_text("".join(f'"{root / name}"\n' for name in fine))
    elif source == "tar":
        src = tmp_path / "all.tar"
        subprocess.run(["tar", "cf", src, "-C", root, "invalid", "odd"], check=True)
    else:
        src = tmp_path / "files"
        for part in ("invalid", "odd"):
            shutil.copytree(root / part, src / part)
    code, out, err = build(src, tmp_path / "set", max_rejects=1, range=EACH_ITS_OWN)
    assert (code, "Traceback" in err) == (0, False), err[-2000:]
    facts = json.loads(out)
    assert facts["seen"] == facts["kept"] + sum(facts["rejected"].values()) >= len(fine)
    rejected = set().union(*facts["rejects"].values())
    broken = {name for name, ok in fine.items() if not ok}
    for name in broken:
        assert any(reject.endswith(name) for reject in rejected), name
    odd = [name for name in rejected if "/odd/" in f"/{name}" and not name.endswith("LICENSES")]
    odd = [name for name in odd if any(name.endswith(file) for file in fine)]
    # four are truncated: Pillow raises at their first load
    assert len(odd) - len(facts["rejects"].get("other file", [])) <= 4
    data = shards.open(tmp_path / "set")
    assert all(data.image(n).mode == "RGB" for n in range(len(data)))
    assert shards.verify(tmp_path / "set") == []


def test_without_validation_nothing_is_lost_and_training_names_the_sample(malformed, tmp_path):
    root, _ = malformed
    code, out, _ = build(root / "invalid", tmp_path / "set", validate="none", max_rejects=1)
    assert code == 0
    facts = json.loads(out)
    assert facts["seen"] == facts["kept"] + sum(facts["rejected"].values())
    data = shards.open(tmp_path / "set")
    for number in range(len(data)):
        with pytest.raises(shards.ShardError, match="cannot be decoded"):
            data.image(number)


def test_too_many_rejects_are_one_line_and_exit_code_1(malformed, tmp_path):
    root, _ = malformed
    code, out, err = build(root / "invalid", tmp_path / "set")
    assert (code, out, "Traceback" in err) == (1, "", False)
    assert "images were rejected" in err


def test_made_smaller_they_are_upright_jpegs(malformed, tmp_path):
    root, _ = malformed
    code, out, _ = build(
        root / "odd", tmp_path / "set", max_side=64, max_rejects=1, range=EACH_ITS_OWN
    )
    assert code == 0
    data = shards.open(tmp_path / "set")
    assert len(data) == json.loads(out)["kept"] > 90
    assert max(max(data.image(n).size) for n in range(len(data))) <= 64


def test_orientations_are_recorded_and_applied(unpacked, tmp_path):
    src = unpacked("exif-orientation.tar") / "exif-orientation"
    code, _, _ = build(src, tmp_path / "set")
    data = shards.open(tmp_path / "set")
    assert (code, len(data)) == (0, 18)
    for number, key in enumerate(data.keys):
        assert data.index.samples[number]["orientation"] == max(int(key[-1]), 1)
        width, height = data.image(number).size
        assert (width > height) == key.startswith("Landscape")


def test_every_flipped_bit_is_found(unpacked, tmp_path):
    src = unpacked("exif-orientation.tar") / "exif-orientation"
    shards.build(src, tmp_path / "set", shard_size=9, max_side=64)
    rng = random.Random(0)
    for file in sorted((tmp_path / "set").iterdir()):
        intact = file.read_bytes()
        for _ in range(400):
            data = bytearray(intact)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
            assert shards.verify(tmp_path / "set") != [], file
        file.write_bytes(intact)
    assert shards.verify(tmp_path / "set") == []
