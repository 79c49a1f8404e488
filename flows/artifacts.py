"""What Prefect's UI shows of a stage: progress, tables, pictures; whatever becomes of it, the stage goes on."""

import base64
import time
from contextlib import suppress
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.tables import Result
from shards import storage

SECONDS = 5.0  # between two updates of a progress


class Advance:
    """The progress of a stage; after the first failure it is silent."""

    def __init__(self, name: str) -> None:
        self._name, self._next, self._gone = name, 0.0, False
        self._id: Any = None

    def __call__(self, per_cent: float, line: str) -> None:
        """Show how far it is."""
        if self._gone or (time.monotonic() < self._next and per_cent < 100):
            return
        self._next = time.monotonic() + SECONDS
        try:
            if self._id is None:
                self._id = create_progress_artifact(per_cent, key=_key(self._name, "progress"), description=line)
            else:
                update_progress_artifact(self._id, per_cent, description=line)
        except Exception:  # of a server that is gone
            self._gone = True


def result(name: str, done: Result) -> None:
    """The result of a stage: what was kept and why not, or the scores beside the paper's, or the report's pictures."""
    with suppress(Exception):
        if counts := done.get("counts"):
            table = [{"files": part, "count": count} for part, count in counts.items()]
            create_table_artifact(table, key=_key(name, "files"), description=f"{done['url']}: {done['text']}")
        if text := done.get("markdown"):
            create_markdown_artifact(text, key=_key(name, "results"), description=f"measured here: {done['text']}")
        if "report.html" in done.get("outputs", {}):
            place = f"{done['url']}/report.html"
            create_markdown_artifact(f"[{place}]({place})", key=_key(name, "page"), description="the report: open it in a browser")
            picture = base64.b64encode(storage.read_bytes(f"{done['url']}/maps.png")).decode()
            create_image_artifact(f"data:image/png;base64,{picture}", key=_key(name, "maps"), description="where the encoders look")


def _key(*parts: str) -> str:
    return "-".join("".join(c if c.isalnum() else "-" for c in part.lower()) for part in parts)
