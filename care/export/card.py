"""The card of an exported encoder: what it is, how it was trained and judged, how it is loaded."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple
from care.encoders import Encoder
from care.export.preprocessing import Preprocessing
from care.export.provenance import Provenance
from care.show.export import PLAIN, as_markdown

FILE = "README.md"
_UNKNOWN = "unknown"  # what hubs know as no license


class Checked(NamedTuple):
    """How an export was read again before it got its name.

    Attributes:
        by: what read it, with its version; "" of a library that was not asked.
        difference: of the features, the largest, by the largest of them.
        advice: what to do where the library was not asked.
    """

    by: str
    difference: float
    advice: str

    @property
    def text(self) -> str:
        """A line of it."""
        if not self.by:
            return f"not verified: {self.advice}"
        text = f"all weights read by {self.by}, features equal to {self.difference:.1g} of the"
        text += " largest"
        return f"{text}; {self.advice}" if self.advice else text


def model_card(
    encoder: Encoder,
    digest: str,
    preprocessing: Preprocessing,
    provenance: Provenance,
    checked: Checked,
    *,
    library: str,
    usage: str,
    license_id: str,
) -> str:
    """Write the card, Markdown with the header that hubs read.

    Args:
        encoder: what is exported.
        digest: of its weights.
        preprocessing: of its images.
        provenance: where it is from.
        checked: how the export was read again.
        library: for whom it is, in the header.
        usage: how it is loaded.
        license_id: identifier of the license, or "unknown".
    """
    name = encoder.name
    parts = [
        _header(library, license_id),
        f"# {name}, pre-trained without labels\n" if provenance.training else f"# {name}\n",
        _table(_facts(encoder, digest, provenance, checked, license_id)),
        f"## Use\n\n{usage}",
        f"## Images\n\n{_images(encoder, preprocessing)}",
    ]
    if provenance.training:
        parts.append(f"## Training\n\n{_table(provenance.training)}")
    parts.append(f"## Results\n\n{_results(provenance)}")
    return "\n".join(parts)


def _header(library: str, license_id: str) -> str:
    """The YAML that hubs read."""
    lines = ["---", f"license: {license_id}"]
    if library:
        lines.append(f"library_name: {library}")
    tags = ["self-supervised-learning", "image-feature-extraction", "care"]
    lines += ["pipeline_tag: image-feature-extraction", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join([*lines, "---", ""])


def _facts(
    encoder: Encoder, digest: str, provenance: Provenance, checked: Checked, license_id: str
) -> dict[str, str]:
    """What tells the encoder from others."""
    facts = {
        "encoder": encoder.name,
        "features": f"{encoder.features:,}",
        "digest of the weights": digest,
    }
    if provenance.data:
        facts["digest of the training set"] = provenance.data
    if encoder.assumed:
        facts["assumed"] = encoder.assumed
    if license_id == _UNKNOWN:
        facts["license"] = "nobody has said; that of the images may bind the weights"
    else:
        facts["license"] = license_id
    return facts | {
        "verified": checked.text,
        "exported by": f"care-ssl {version('care-ssl')}",
    }


def _images(encoder: Encoder, preprocessing: Preprocessing) -> str:
    """How an image is prepared, in words."""
    mean = ", ".join(f"{number:g}" for number in preprocessing.mean)
    std = ", ".join(f"{number:g}" for number in preprocessing.std)
    height, width = preprocessing.size
    rows, columns = preprocessing.resized
    covered = f"resized (bilinear) until it just covers {rows} × {columns} px"
    if preprocessing.is_square:
        covered = f"the short side resized (bilinear) to {rows} px"
    text = (
        f"RGB, upright; {covered}, the centre of {height} × {width} px (height × width) cut out,"
        f" pixels from 0 to 1 less the mean ({mean}), by the deviation ({std}). The same numbers"
        " are in `preprocessing.json`.\n"
    )
    if getattr(encoder, "gray", False):
        text += (
            "\nIt was trained on gray images: the parts of red, green and blue in gray are in its"
            " first convolution, so that a gray image is three equal channels.\n"
        )
    return text


def _results(provenance: Provenance) -> str:
    if not provenance.results:
        return "None of this encoder were there when it was exported.\n"
    return as_markdown(provenance.results)


def _table(texts: Mapping[str, str]) -> str:
    lines = [f"| {name} | {text.translate(PLAIN)} |" for name, text in texts.items()]
    return "\n".join(["| | |", "|---|---|", *lines, ""])
