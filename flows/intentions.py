"""What a run is about to do, left in a file so that ``care pipeline status`` knows what is to come.

``OUT/stages/.intentions.json`` lists the stages of the last run below a folder in their order, each
with its folder from when it is known. It decides nothing: without it, less is told.
"""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from shards import storage
from shards.errors import ShardError, StoreError

FILE = "stages/.intentions.json"


class Intentions:
    """The stages of one run.

    Args:
        out: folder of the pipeline, path or URL.
    """

    def __init__(self, out: str) -> None:
        self._url = f"{out}/{FILE}"
        self._lock = threading.Lock()
        self._folders = dict[str, str | None]()

    def announce(self, names: Sequence[str]) -> None:
        """Name all stages of the run, in their order."""
        with self._lock:
            self._folders = {name: self._folders.get(name) for name in names}
            self._write()

    def begin(self, name: str, folder: str) -> None:
        """Tell which folder a stage has, if it was announced.

        Args:
            name: of the stage.
            folder: its name and the beginning of its key.
        """
        with self._lock:
            if self._folders.get(name, folder) != folder:
                self._folders[name] = folder
                self._write()

    def _write(self) -> None:
        with suppress(OSError, ShardError):  # it is only told
            storage.write_json(self._url, [[*pair] for pair in self._folders.items()])


def intended(out: str) -> dict[str, str | None]:
    """The stages of the last run, by name in their order: the folder of each, where it is known.

    Args:
        out: folder of a pipeline, path or URL.
    """
    with suppress(OSError, StoreError, ValueError, TypeError):
        pairs = json.loads(storage.read_bytes(f"{out}/{FILE}"))
        return {str(name): folder for name, folder in pairs}
    return {}
