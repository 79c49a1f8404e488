"""An encoder written for another library, read again by it, and only then put under its name."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple
import torch
from torch import Tensor
from care.encoded import bands_of
from care.encoders import Encoder
from care.errors import CareError
from care.export import card, preprocessing
from care.export.card import Checked, model_card
from care.export.form import Form
from care.export.preprocessing import Preprocessing, preprocessing_of
from care.export.provenance import check_folder, provenance_of, with_encoder
from care.export.to_detectron2 import DETECTRON2
from care.export.to_hf import HF
from care.export.to_onnx import ONNX
from care.export.to_safetensors import SAFETENSORS
from care.export.to_timm import TIMM
from care.export.to_torchvision import TORCHVISION
from care.train import load_encoder
from care.train.photometrics import normalize
from care.train.weights import digest_of
from shards import storage

Target = Literal["torchvision", "timm", "hf", "detectron2", "onnx", "safetensors"]
FORMS: dict[str, Form] = {
    "torchvision": TORCHVISION,
    "timm": TIMM,
    "hf": HF,
    "detectron2": DETECTRON2,
    "onnx": ONNX,
    "safetensors": SAFETENSORS,
}
RECORD = "export.json"
# of the largest feature, by which others' may differ
TOLERANCE = 1e-5
_IMAGES = 3  # that are compared
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class Exported(NamedTuple):
    """What was written.

    Attributes:
        folder: where it is.
        files: names in it.
        checked: how it was read again.
    """

    folder: str
    files: list[str]
    checked: Checked


def export_encoder(
    source: str,
    dest: str | Path,
    *,
    to: Target,
    license_id: str = "unknown",
    judged: str | None = None,
) -> Exported:
    """Write an encoder as another library has it, with preprocessing and a model card.

    Before the folder gets its name, it is read by the library itself, every weight of it, and its
    features of images are compared with the encoder's: they may differ by 1e-5 of the largest. A
    library that is not installed is not asked, which the card says. detectron2 never is, since no
    package index has it: its names are read by this package.

    Args:
        source: run, weights file, random:NAME or supervised:NAME; or a folder of `care demo` and
            `care pipeline run`.
        dest: folder, path or URL, that is not there yet.
        to: the library or the form.
        license_id: of the weights, for the card, such as apache-2.0; unknown if nobody has said.
        judged: folder with the results of `care evaluate`, whose rows of this encoder are on the
            card.

    Returns:
        What was written.

    Raises:
        CareError: There is no such encoder, the library has no place for it or reads it in another
            way, or there is something at ``dest``.
        ShardError: A file cannot be written.
    """
    form = FORMS[to]
    if not _LICENSE.fullmatch(license_id):
        raise CareError(
            f"wanted the identifier of a license, such as apache-2.0 or cc-by-4.0, got {license_id}"
        )
    check_folder(judged)
    _check_absent(dest)
    encoder_source = with_encoder(source)
    encoder = load_encoder(encoder_source)
    _check_place(encoder, to)
    digest = digest_of(encoder)
    prepared = preprocessing_of(encoder)
    provenance = provenance_of(encoder_source, digest, judged)
    with _committed(dest) as folder:
        form.write(encoder, prepared, folder)
        checked = _check(form, to, encoder, prepared, folder)
        text = model_card(
            encoder,
            digest,
            prepared,
            provenance,
            checked,
            library=form.package,
            usage=form.usage(encoder, prepared),
            license_id=license_id,
        )
        storage.write_bytes(folder / card.FILE, text.encode(errors="backslashreplace"))
        storage.write_json(folder / preprocessing.FILE, prepared.facts())
        record = {
            "to": to,
            "encoder": encoder.name,
            "features": encoder.features,
            "digests": {"encoder": digest, "data": provenance.data},
            "license": license_id,
            "verified": checked._asdict(),
            "versions": {"care": version("care-ssl"), "torch": version("torch")},
            "evaluations": [*provenance.results],
        }
        storage.write_json(folder / RECORD, record)
        names = sorted(storage.listing(folder))
    return Exported(str(dest), names, checked)


def _check_place(encoder: Encoder, to: str) -> None:
    """Refuse an encoder that a library has no place for, and tell which have one.

    Raises:
        CareError: It has none.
    """
    if bands_of(encoder) > 3:
        raise CareError(
            f"{encoder.name} takes images of four bands, and what is exported those of red, green"
            " and blue; take its own file, RUN/encoder.safetensors: it has torchvision's names, a"
            " first convolution of four channels, and in input.scale and input.shift what the"
            " bands are normalised by"
        )
    reason = FORMS[to].lacks(encoder)
    if reason:
        others = [name for name, form in FORMS.items() if not form.lacks(encoder)]
        raise CareError(
            f"{FORMS[to].package or to} has no place for {encoder.name}: {reason}; export it --to"
            f" {' or '.join(others)}"
        )


def _check_absent(dest: str | Path) -> None:
    """Refuse a folder that has something in it, before anything is computed.

    Raises:
        CareError: There is something.
    """
    place = storage.locate(dest)
    if place.is_file() or any(storage.listing(dest, deep=True)):
        raise CareError(f"{dest} is there already; give another folder, or remove it")


@contextmanager
def _committed(dest: str | Path) -> Iterator[Path]:
    """A local folder that is there under its name, or URL, only when the block has ended well.

    In an object store the record is written last.
    """
    if not storage.is_remote(dest):
        with storage.writing_directory(dest) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="care-") as near:
        folder = Path(near)
        yield folder
        for name in sorted(storage.listing(folder), key=_is_record):
            storage.copy(folder / name, f"{str(dest).rstrip('/')}/{name}")


def _is_record(name: str) -> bool:
    return name == RECORD


def _check(form: Form, to: str, encoder: Encoder, prepared: Preprocessing, folder: Path) -> Checked:
    """Read what was written by its library, and compare features.

    Raises:
        CareError: They differ, or the library cannot read it.
    """
    if form.package and find_spec(form.package) is None:
        advice = f"{form.package} is not installed; pip install 'care-ssl[{form.extra}]'"
        return Checked("", 0.0, f"{advice} and export it again")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(_IMAGES, 3, *prepared.size, generator=generator)
    with torch.no_grad():
        wanted: Tensor = encoder(normalize(pixels)).features
        try:
            got = form.load(folder, prepared)(pixels)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CareError(
                f"{form.package or 'its own reader'} does not read what was written for it"
                f" ({reason:.300}); nothing was left: try another --to, or another version of it"
            ) from error
    difference = _difference(got, wanted, to)
    return Checked(_reader(form), difference, form.caveat)


def _difference(got: Tensor, wanted: Tensor, to: str) -> float:
    """The largest difference of features, by the largest feature.

    Raises:
        CareError: It is above the tolerance, or the features are not finite.
    """
    if not wanted.isfinite().all():
        raise CareError("the encoder's features are not finite; export a checkpoint before that")
    if got.shape != wanted.shape:
        raise CareError(
            f"wanted features {[*wanted.shape]} of {to}, got {[*got.shape]}; try another --to"
        )
    largest = float(wanted.abs().max())
    difference = float((got - wanted).abs().max()) / (largest or 1.0)
    if not difference <= TOLERANCE:
        raise CareError(
            f"the features of {to} differ by {difference:.2g} of the largest, wanted at most"
            f" {TOLERANCE:g}; nothing was left"
        )
    return difference


def _reader(form: Form) -> str:
    """The package that has read an export, with its version."""
    if not form.package:
        return f"care-ssl {version('care-ssl')}"
    return f"{form.package} {version(form.package)}"
