"""What decides a stage's result: the code that its work runs, and what its inputs are."""

import re
from functools import cache
from typing import Any
import shards
from flows.encoder_identity import encoder_identity, file_identity
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
        return encoder_identity(value)
    if "index.json" in storage.listing(value):
        return storage.sha256(f"{value}/index.json")
    if name == "names":
        return file_identity(value)
    if "verb" in inputs:
        places = {place: inputs.get(place) for place in ("image_root", "columns")}
        return load_data(inputs["verb"], value, **places).digest
    return shards.open(value).digest
