"""What this installation can do on this machine, and what is missing for what."""

import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple
import torch
from packaging.requirements import Requirement
from PIL import features
from care.train.precision import fastest_precision
from flows.server import answers
from shards import storage
from shards.cores import available_cores
from shards.errors import ShardError
from shards.misspelt import suggestion

DISTRIBUTION = "care-ssl"
PACKAGES = (DISTRIBUTION, "torch", "torchvision", "prefect", "webdataset", "numpy", "pillow")
# what each extra of the package is for
EXTRAS = {
    "s3": "sets, runs and results at s3://",
    "azure": "the same at az://",
    "gcs": "the same at gs://",
    "http": "sets and lists of images at https://",
    "dask": "care pipeline run --runner dask",
    "ray": "care pipeline run --runner ray",
    "timm": "encoders timm:NAME, vision transformers, LARS and LARC",
    "hf": "care export --to hf, read again by transformers",
    "onnx": "care export --to onnx",
    "coco": "care evaluate detect --metric-backend faster-coco-eval",
    "parquet": "tables of images, and features, in Parquet",
    "imagenet": "the classes of ImageNet's own archive (meta.mat)",
    "datasets": "data sets of Hugging Face",
    "supervision": "boxes in the layouts of YOLO, LabelMe and VIA",
    "tiff": "TIFF and JPEG 2000 that Pillow cannot read",
    "heif": "HEIC, as phones write it",
    "jxl": "JPEG XL",
    "tensorboard": "care pretrain --tensorboard",
}
# formats that Pillow may be built without
FORMATS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF", "jpg_2000": "JPEG 2000"}
# below it a pipeline on real images soon has no room for its shards and checkpoints
LITTLE_SPACE = 5e9

State = Literal["ok", "missing", "fault"]


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        group: what it belongs to.
        name: of it.
        state: "ok", "missing" where something optional is not there, or "fault" where a command
            will fail.
        text: what there is, or what to do.
    """

    group: str
    name: str
    state: State
    text: str


def examine(*places: str) -> Iterator[Check]:
    """Look at the installation and the machine.

    Args:
        places: folders, paths or URLs, in each of which a small file is written, read and removed.
    """
    yield from _packages()
    yield from _devices()
    yield from _formats()
    yield from _extras()
    yield _engine()
    yield _space(Path.cwd())
    for place in places:
        yield _place(place)


def _packages() -> Iterator[Check]:
    """The versions of what computes."""
    yield Check("versions", "Python", "ok", platform.python_version())
    for name in PACKAGES:
        try:
            yield Check("versions", name, "ok", version(name))
        except PackageNotFoundError:
            yield Check("versions", name, "fault", f"not installed; pip install {name}")


def _devices() -> Iterator[Check]:
    """What computes, and in which precision it is fastest."""
    precision = fastest_precision(torch.device("cpu"))
    text = f"{available_cores()} cores for this process, {precision}"
    yield Check("devices", f"CPU ({platform.machine()})", "ok", text)
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        precision = fastest_precision(torch.device("cuda", number))
        text = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {precision}"
        yield Check("devices", f"cuda:{number}", "ok", text)
    if torch.backends.mps.is_available():
        yield Check("devices", "mps", "ok", "--device mps trains on it, in fp32")
    if not torch.cuda.is_available():
        yield Check("devices", "cuda", "missing", _why_no_cuda())


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA: trainings use the CPU"
    return "no GPU that this torch can use: trainings use the CPU (see nvidia-smi)"


def _formats() -> Iterator[Check]:
    """The decoders of Pillow."""
    for feature, name in FORMATS.items():
        if features.check(feature):
            yield Check(
                "images", name, "ok", f"{feature} {features.version(feature) or ''}".strip()
            )
        else:
            text = "this Pillow was built without it; pip install --force-reinstall pillow"
            yield Check("images", name, "fault", text)


def _extras() -> Iterator[Check]:
    """What can be installed in addition."""
    for extra, purpose in EXTRAS.items():
        absent = [name for name in _requirements(extra) if not _is_installed(name)]
        if absent:
            text = f"{purpose}: pip install '{DISTRIBUTION}[{extra}]'"
            yield Check("extras", extra, "missing", text)
        else:
            yield Check("extras", extra, "ok", purpose)


def _requirements(extra: str) -> list[str]:
    """The packages of an extra, as the metadata of ours name them."""
    names = []
    with suppress(PackageNotFoundError):
        for line in requires(DISTRIBUTION) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return names or [f"{DISTRIBUTION}[{extra}]"]


def _is_installed(name: str) -> bool:
    with suppress(PackageNotFoundError):
        return bool(version(name))
    return False


def _engine() -> Check:
    """The workflow engine: a server of the user's, or one that is started when it is needed."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return Check(
            "engine", "Prefect", "ok", "a server of its own, on this machine, for each run"
        )
    if answers(address):
        return Check("engine", "Prefect", "ok", f"{address} (PREFECT_API_URL)")
    text = f"nobody answers at {address}; start that server, or unset PREFECT_API_URL"
    return Check("engine", "Prefect", "fault", text)


def _space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free > LITTLE_SPACE else "missing"
    return Check("places", str(folder), state, f"{free / 1e9:.0f} GB free")


def _place(place: str) -> Check:
    """Whether files can be written, read and removed in a folder."""
    if not storage.is_remote(place) and not Path(place).is_dir():
        return Check("places", place, "fault", f"no folder of that name{suggestion(place)}")
    content = uuid.uuid4().bytes
    file = f"{place.rstrip('/')}/.care-doctor-{content.hex()}"
    try:
        storage.write_bytes(file, content)
        is_same = storage.read_bytes(file) == content
        storage.remove(file)
    except (ShardError, OSError) as error:
        return Check("places", place, "fault", str(error))
    if not is_same:
        return Check("places", place, "fault", "what is read there is not what was written")
    return Check("places", place, "ok", "can be written and read")
