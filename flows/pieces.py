"""Parts of a stage that any process which can reach its folder may do: shards of a set, features of a shard."""

import json
from functools import cache
from typing import Any

import shards
from flows.tables import Result
from shards import locks, scenes, storage
from shards.build import Plan, make_plan, write_shard

SCENE_SIZE = 96


def pieces(work: str, out: str, inputs: Result) -> list[Any]:
    """The parts of a stage that are not there yet, each for ``piece``; none where a stage has no parts."""
    there = {*storage.listing(out)}
    if work == "build" and "index.json" not in there:
        count = len(_plan(json.dumps(inputs)).shards)
        return [n for n in range(count) if not {f"shard-{n:06}.tar", f".shard-{n:06}.json"} <= there]
    parts = ("train", "val") if work == "features" else ()
    return [[part, n] for part in parts for n in range(len(shards.open(inputs[part]).index.shards))]


def piece(work: str, out: str, inputs: Result, number: Any) -> None:
    """Do one of ``pieces``."""
    if work == "build":
        write_shard(_plan(json.dumps(inputs)), storage.locate(out), number)
        return
    from care.evaluate import extract
    from flows.stages import loaded

    encoder, data = loaded(inputs["encoder"], inputs["seed"]), shards.open(inputs[number[0]])
    extract(encoder, data, size=inputs["size"], cache=out, only=[number[1]])


@cache
def _plan(inputs: str) -> Plan:  # by a text, which can be looked up
    given = json.loads(inputs)
    source = images_of(given.pop("source"), given.pop("annotated", False), given.get("seed", 0))
    return make_plan(source, **{name: value for name, value in given.items() if name not in ("max_rejects", "workers")})


def images_of(source: str, annotated: bool, seed: int) -> str:
    """A source, or for ``scenes:START+COUNT`` the folder of those scenes among the user's caches: classes, or ``annotated`` ones."""
    if not source.startswith("scenes:"):
        return source
    start, count = map(int, source.removeprefix("scenes:").split("+"))
    name = f"{seed}-{start}-{count}-{storage.sha256(str(scenes.__file__))[:8]}"
    place = shards.Cache().folder.parent / "scenes" / name
    with locks.exclusive(place.with_name(f".{name}"), "rendering", patience=600):
        scenes.write(place, count=count, seed=seed, size=SCENE_SIZE, start=start)
    return str(place if annotated else place / "images")
