"""COCO's metric by pycocotools and by faster-coco-eval, on results of val2017's size.

``nox -s bench -- coco``; ``python -m tests.bench.coco --pictures 500`` is a tenth of it.
"""

import argparse
from functools import partial
from pathlib import Path
import numpy as np
from care.evaluate.average_precision import Detections
from care.evaluate.coco_metric import judge_coco
from shards.boxes import BoxSet, Picture
from tests.bench.timing import interleaved, show

# of val2017: 36,781 objects in 5,000 images; detectors keep at most 100 detections of an image
PICTURES, CLASSES, OBJECTS, DETECTIONS = 5_000, 80, 7, 100
SIDE = 640  # px


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(0, SIDE - 100, (count, 2))
    return np.hstack((corners, corners + rng.uniform(8, 300, (count, 2)))).astype(np.float32)


def draw(pictures: int) -> tuple[BoxSet, list[Detections]]:
    """Objects, and detections of which some are near them."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for number in range(pictures):
        count = int(rng.poisson(OBJECTS))
        corners = boxes(rng, count)
        labels = rng.integers(0, CLASSES, count)
        crowd = rng.random(count) < 0.01
        path = Path(f"{number}.jpg")
        never = np.zeros(count, np.bool_)
        picture = Picture(path, (SIDE, SIDE), corners, labels, never, crowd, [[]] * count)
        truth.append(picture)
        near = corners + rng.normal(0, 6, (count, 4)).astype(np.float32)
        others = boxes(rng, DETECTIONS - min(count, DETECTIONS))
        some = rng.integers(0, CLASSES, len(others))
        found.append(
            Detections(
                np.vstack((near, others)),
                rng.random(count + len(others)).astype(np.float32),
                np.concatenate((labels, some)),
            )
        )
    classes = tuple(str(number) for number in range(CLASSES))
    return BoxSet(Path("val"), truth, classes, {}, ""), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    truth, found = draw(options.pictures)
    results = {}

    def judge(backend: str) -> None:
        results[backend] = judge_coco(truth, found, backend=backend)  # type: ignore[arg-type]

    work = {name: partial(judge, name) for name in ("pycocotools", "faster-coco-eval")}
    times = interleaved(work, options.rounds)
    show(
        f"COCO's metric of {options.pictures:,} images of {DETECTIONS} detections",
        times,
        count=options.pictures,
        unit="image",
        reference="pycocotools",
    )
    slow, fast = (results[name] for name in work)
    print(f"figures: {slow.precision} and {fast.precision}")


if __name__ == "__main__":
    main()
