"""What decides a stage's result: the code that its work runs, and what its inputs are."""

import re
from contextlib import suppress
from functools import cache
from typing import Any
import shards
from flows.result import Result
from flows.source_code import Code
from flows.verbs import load_data
from flows.works import WORKS
from flows.works.data import build_plan
from shards import storage
from shards.contents import identity_of

# inputs that are a path or URL: what lies there counts, not where it lies
_PLACES = ("source", "train", "val", "encoder", "init", "names")
# already a digest, or a name that says all
_DIGEST_OR_NAME = re.compile("[0-9a-f]{64}|(scenes|random|supervised):.*")


@cache
def code_digest(work: str, verb: str | None = None) -> str:
    """Digest of all code that a stage runs, of the packages as they are installed.

    Args:
        work: a name in ``flows.works.WORKS``.
        verb: the evaluation that the work ``judge`` is to do, a name in ``care.evaluate``.
    """
    roots = [WORKS[work]] + ([f"care.evaluate:{verb}"] if verb else [])
    return _installed_code().digest(*roots)


@cache
def _installed_code() -> Code:
    return Code()


def input_identity(name: str, value: Any, inputs: Result) -> Any:
    """What an input of a stage is, wherever it lies.

    Args:
        name: of the input.
        value: of the input.
        inputs: all of them, which say how to read this one.

    Returns:
        For a path or URL a digest of what is there, else the value itself.
    """
    if name == "image_root":  # its images are in the digest of the list that they belong to
        return None
    if name not in _PLACES or value is None or _DIGEST_OR_NAME.fullmatch(str(value)):
        return value
    if name == "source":
        plan = build_plan(inputs)
        return storage.digest([plan.digest, identity_of(plan.source.samples)])
    if name in ("encoder", "init"):
        return _encoder_identity(value)
    if "index.json" in storage.listing(value):
        return storage.sha256(f"{value}/index.json")
    if name == "names":
        return _file_identity(value)
    if "verb" in inputs:
        places = {place: inputs.get(place) for place in ("image_root", "columns")}
        return load_data(inputs["verb"], value, **places).digest
    return shards.open(value).digest


def _encoder_identity(source: str) -> Any:
    """What an encoder is: its file or run, and which network there it is asked for as."""
    from care.train.encoder_source import parse_source  # torch, for stages that have an encoder

    place, *parts = parse_source(source)
    identity = _file_identity(place)
    return [identity, *parts] if any(parts) else identity


def _file_identity(url: str) -> str:
    """The digest of a file, or of a run that goes on: of its newest checkpoint; else its place.

    A checkpoint's own folder is known by its manifest, and a fine-tuning by its last training.
    """
    if "manifest.json" in storage.listing(url):
        return storage.sha256(f"{url}/manifest.json")
    for run in (url, f"{url}/all labels"):
        files = storage.listing(f"{run}/checkpoints", deep=True)
        manifests = [name for name in files if name.endswith("/manifest.json")]
        if manifests:
            return storage.sha256(f"{run}/checkpoints/{max(manifests)}")
    with suppress(FileNotFoundError, IsADirectoryError):
        return storage.sha256(url)
    return url
