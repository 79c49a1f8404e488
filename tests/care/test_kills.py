"""Building, pre-training and evaluation killed at random moments: `nox -s crash`.

Every round forks a process that does the work, or goes on with it, and kills it after a random
time; when it gets through, what it leaves is compared with that of a calm run, and the next round
starts from nothing.
"""

import hashlib
import multiprocessing
import random
import shutil
import time
import numpy as np
import pytest
import shards
from care import BYOL, resnet18, streams_for
from care.evaluate import Crops, DetectorShape, Labels, detect, finetune, knn, linear
from care.train import Machine, pretrain
from shards import boxes, scenes, spool, storage

pytestmark = pytest.mark.crash
KILLS = 40


def content(folder):
    """Digests of all files but those that tell the time."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("timing.jsonl", "about.json")
    }


def start(work, out):
    process = multiprocessing.get_context("fork").Process(target=work, args=(out,))
    process.start()
    return process


def survives(work, folder, kills=KILLS):
    began = time.monotonic()
    calm = start(work, folder / "calm")
    calm.join()
    assert calm.exitcode == 0
    duration = time.monotonic() - began
    wanted = content(folder / "calm")
    rng = random.Random(0)
    out = folder / "killed"
    killed = finished = 0
    while killed < kills or not finished:
        process = start(work, out)
        process.join(rng.uniform(0, duration) if killed < kills else None)
        if process.is_alive():
            process.kill()
            process.join()
            killed += 1
            continue
        assert process.exitcode == 0
        assert content(out) == wanted
        finished += 1
        shutil.rmtree(out)
    print(f"{killed} kills, {finished} runs got through")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder / "train", count=120, size=48)
    shards.build(folder / "train" / "images", folder / "set", shard_size=30)
    return folder


def test_building(rendered, tmp_path):
    def work(out):
        shards.build(rendered / "train" / "images", out, shard_size=6, workers=2)

    survives(work, tmp_path)


def test_building_what_python_code_yields(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "PART_BYTES", 40_000)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)

    def work(out):
        samples = ((number, image, number % 3) for number, image in enumerate(pixels))
        shards.build(samples, out, shard_size=6, workers=2)

    survives(work, tmp_path)


def test_pretraining(rendered, tmp_path):
    def work(out):
        c, t = streams_for(
            "resnet18-small-half", size=32, seed=0, blocks=1, objective=BYOL(hidden=32)
        )
        pretrain(
            shards.open(rendered / "set"),
            out,
            c,
            t,
            size=32,
            batch_size=8,
            steps=12,
            precision="fp32",
            machine=Machine("cpu", workers=1, checkpoint_every=1, keep_every=5),
        )

    survives(work, tmp_path)


def test_evaluating(rendered, tmp_path):
    def work(out):
        encoder, data = resnet18(small=True, half=True), shards.open(rendered / "set")
        encoder.load_state_dict(weights)
        machine = Machine(checkpoint_every=1)
        small = {"crops": Crops(size=32), "machine": machine}
        results = {
            "knn": knn(encoder, data, data, size=32, cache=out / "features"),
            "linear": linear(
                encoder, data, data, out / "linear", **small, epochs=2, batch_size=8, lrs=(0.1, 1.0)
            ),
            "finetune": finetune(
                encoder,
                data,
                data,
                out / "few",
                **small,
                labels=Labels(fraction=0.5),
                epochs=(1, 2),
                batch_size=8,
                precision="fp32",
            ),
        }
        box_set = boxes.load(rendered / "train")
        for head in ("c4", "fpn"):
            results[head] = detect(
                encoder,
                box_set,
                box_set,
                out / head,
                shape=DetectorShape(head=head, channels=8, hidden=8, proposals=8, anchor_scale=4),
                size=32,
                iterations=4,
                batch_size=2,
                precision="fp32",
                machine=Machine(device="cpu", checkpoint_every=1),
            )
        for name, result in results.items():
            storage.write_json(out / f"{name}.json", result._replace(outcomes=None))
            if result.outcomes is not None:
                for file, data in result.outcomes.files().items():
                    storage.write_bytes(out / f"{name}-{file}", data)

    weights = resnet18(small=True, half=True).state_dict()
    survives(work, tmp_path)
