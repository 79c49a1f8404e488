"""The parts of a stage that can be done side by side, by threads here or on other machines.

A piece leaves what the stage's own process then finds and does not do again: a shard of a set, the
features of a shard. Of whatever else a stage does there are no pieces.
"""

import json
from functools import cache
from typing import Any
import shards
from flows.result import Result
from flows.works.data import build_plan
from shards import storage
from shards.plan import Plan, missing_shards
from shards.write import write_shard


def missing_pieces(work: str, out: str, inputs: Result) -> list[Any]:
    """The pieces of a stage that are not there yet, each for ``do_piece``.

    Args:
        work: a name in ``flows.works.WORKS``.
        out: folder of the stage, path or URL.
        inputs: of the work.

    Returns:
        Numbers of shards, of features with the part of the data; none of a stage without pieces.
    """
    names = {*storage.listing(out)}
    if work == "build" and "index.json" not in names:
        return missing_shards(build_plan(inputs), names)
    pieces = list[Any]()
    for part in ("train", "val") if work == "features" else ():
        count = len(shards.open(inputs[part]).index.shards)
        pieces += [[part, number] for number in range(count)]
    return pieces


def do_piece(work: str, out: str, inputs: Result, piece: Any) -> None:
    """Do one of ``missing_pieces``, in this process.

    Args:
        work: as for ``missing_pieces``, like what follows.
        out: folder of the stage.
        inputs: of the work.
        piece: which one.
    """
    if work == "build":
        write_shard(_known_plan(out, json.dumps(inputs)), storage.locate(out), piece)
        return
    from flows.works.features import extract_shard  # imports torch

    part, number = piece
    extract_shard(out, inputs, part, number)


@cache
def _known_plan(_: str, inputs: str) -> Plan:
    """The plan of the set in a folder, by the text of its inputs, which can be looked up."""
    return build_plan(json.loads(inputs))
