"""One shard, written from a plan: a pure function of both."""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from shards import index, storage
from shards.images import check, shrink
from shards.plan import RECORD, TAR, Plan
from shards.rejects import Reject, RejectError
from shards.sources.candidates import read, suffix


def write_shard(
    plan: Plan, dest: Path, number: int, tick: Callable[[], None] = lambda: None
) -> None:
    """Write shard ``number`` into ``dest``, then a record of it; ``tick`` is called before every image and may raise to stop."""
    entries, rejects = list[tuple[Any, ...]](), list[tuple[Reject, str]]()
    with storage.writing(dest / (name := TAR.format(number))) as file:
        with tarfile.open(
            fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8"
        ) as tar:  # names of any length and alphabet
            for image in plan.shards[number]:
                tick()
                try:
                    original = read(image)
                    data = (
                        shrink(original, plan.max_side, plan.quality) if plan.max_side else original
                    )
                    upright = check(
                        data, "header" if plan.max_side else plan.validate
                    )  # shrinking decodes: a check of no less
                except RejectError as error:
                    rejects.append((error.reason, image.name))
                    continue
                offset = _append(
                    tar,
                    image.key + (suffix(image.name) if data is original else ".jpg"),
                    data,
                )
                if image.label >= 0:
                    _append(tar, f"{image.key}.cls", str(image.label).encode())
                entries.append(
                    (offset, len(data), zlib.crc32(data), image.label, upright, image.key)
                )
        file.flush()
        shard = index.Shard(name, len(entries), file.tell(), storage.sha256(file.name))
    record = {"plan": plan.digest, "shard": shard, "entries": entries, "rejects": rejects}
    storage.write_bytes(
        dest / RECORD.format(number), json.dumps(record).encode()
    )  # not write_json: indenting takes ten times as long


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    # A member without time and owner: equal ones give equal bytes. Returned: where its data begin.
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - len(data) - -len(data) % tarfile.BLOCKSIZE
