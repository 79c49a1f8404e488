"""Two views an image from JPEGs of 500 × 375 px on one core (nox -s bench -- views).

Ours stands beside other packages, interleaved. All get the same files and do the paper's
augmentation: the released recipe as plain torchvision on PIL images, lightly's BYOLTransform,
albumentations, and webdataset reading our tars into the released recipe. Medians, and ratios to
the released recipe.
"""

import io
import tempfile
from pathlib import Path
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms
import shards
from care.train import VIEWS
from care.train.batches import CroppedViews, batches
from care.train.photometrics import MEAN, STD, apply_photometrics
from tests.bench.timing import interleaved, show

COUNT, SIZE, ROUNDS = 64, 224, 5


def photograph(seed: int) -> bytes:
    """Smooth shapes and fine noise: about 110 KB as JPEG, like ImageNet's."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (500, 375), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(small, np.float32) + rng.normal(0, 14, (375, 500, 1))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
        data := io.BytesIO(), "JPEG", quality=90
    )
    return data.getvalue()


class Blur:
    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(np.random.uniform(0.1, 2.0))))


def released(blur_p: float, solarize_p: float) -> transforms.Compose:
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomApply([jitter], 0.8),
            transforms.RandomApply([Blur()], blur_p),
            transforms.RandomGrayscale(0.2),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([ImageOps.solarize], solarize_p),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    files = [photograph(seed) for seed in range(COUNT)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "files")
        source.mkdir()
        for number, data in enumerate(files):
            (source / f"{number:03}.jpg").write_bytes(data)
        shards.build(source, Path(folder, "set"), workers=1)
        data = shards.open(Path(folder, "set"))
        measure(data, files)


def measure(data: shards.ShardSet, files: list[bytes]) -> None:
    first, second = released(1.0, 0.0), released(0.1, 0.2)

    def plain() -> None:
        for file in files:
            image = Image.open(io.BytesIO(file)).convert("RGB")
            first(image), second(image)

    def ours() -> None:
        for _ in batches(data, size=SIZE, batch_size=COUNT // 2, steps=2):
            pass

    crops = CroppedViews(data, SIZE, 0, VIEWS)

    def ours_cropped() -> None:
        for number in range(COUNT):
            crops[0, number]

    halves = colour_work(crops)

    def ours_coloured() -> None:
        for cropped, numbers in halves:
            apply_photometrics(cropped, numbers)

    def decoded() -> None:
        for file in files:
            Image.open(io.BytesIO(file)).convert("RGB")

    def through_webdataset() -> None:
        for sample in shards.stream(data):
            image = Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
            first(image), second(image)

    work = {
        "released recipe (PIL, torchvision)": plain,
        "released recipe behind webdataset": through_webdataset,
        "care: decode, two crops, colour left to a device": ours_cropped,
        "care: all on this core": ours,
        "care: the colour alone": ours_coloured,
        "decoding alone (Pillow)": decoded,
    }
    work |= peers(files)
    times = interleaved(work, ROUNDS)
    title = f"two views of {SIZE} px, {len(files[0]) // 1000} KB JPEGs, one core"
    show(title, times, count=COUNT, unit="image", reference="released recipe (PIL, torchvision)")


def colour_work(crops: CroppedViews) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Both views, cropped, and the numbers of their colour, half of the images at a time."""
    work = []
    for view in range(2):
        samples = [crops[0, number] for number in range(COUNT)]
        cropped = torch.from_numpy(np.stack([sample.pixels[view] for sample in samples]))
        numbers = torch.from_numpy(np.stack([sample.colours[view] for sample in samples]))
        work += zip(cropped.split(COUNT // 2), numbers.split(COUNT // 2), strict=True)
    return work


def peers(files: list[bytes]) -> dict[str, object]:
    found: dict[str, object] = {}
    try:
        from lightly.transforms import BYOLTransform

        transform = BYOLTransform()

        def lightly() -> None:
            for file in files:
                transform(Image.open(io.BytesIO(file)).convert("RGB"))

        found["lightly's BYOLTransform"] = lightly
    except ImportError:
        pass
    try:
        import albumentations as A

        def chain(blur_p: float, solarize_p: float) -> A.Compose:
            return A.Compose(
                [
                    A.RandomResizedCrop((SIZE, SIZE)),
                    A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
                    A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=blur_p),
                    A.ToGray(p=0.2),
                    A.HorizontalFlip(),
                    A.Solarize(p=solarize_p),
                    A.Normalize(MEAN, STD),
                    A.ToTensorV2(),
                ]
            )

        one, two = chain(1.0, 0.0), chain(0.1, 0.2)

        def albumentations() -> None:
            for file in files:
                image = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
                one(image=image), two(image=image)

        found["albumentations"] = albumentations
    except ImportError:
        pass
    return found


if __name__ == "__main__":
    main()
