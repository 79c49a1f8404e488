"""What is known of an encoder that goes elsewhere: how and on what it was trained, its results."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from care.errors import CareError
from care.show.results import evaluations, gather
from care.show.rows import Row, read
from care.show.run_settings import settings_of_pipeline, settings_of_run
from care.train.encoder_source import parse_source
from care.train.mirror import recorded_settings
from shards import storage

# what a run or a pipeline leaves beside its checkpoints, and says of itself
ENCODER_FILE = "encoder.safetensors"
CHECKPOINTS = "checkpoints"
RESULTS = "results.json"
_PRIVATE = ("images", "trained encoder")


class Provenance(NamedTuple):
    """Where an encoder is from.

    Attributes:
        training: its settings, texts by what they are; nothing of what others trained.
        data: digest of the set that it was trained on, or "".
        results: its evaluations, as a results.json has them.
    """

    training: Mapping[str, str]
    data: str
    results: Sequence[Row]


def with_encoder(source: str) -> str:
    """A folder of a pipeline as the file of its encoder; any other source as it is.

    Args:
        source: as for ``load_encoder``.
    """
    if source.startswith(("random:", "supervised:")):
        return source
    wanted = parse_source(source)
    names = storage.listing(wanted.place, deep=False)
    is_run = any(storage.listing(f"{wanted.place}/{CHECKPOINTS}", deep=True))
    if ENCODER_FILE in names and not is_run and not wanted.branch:
        return f"{wanted.place}/{ENCODER_FILE}"
    return source


def provenance_of(source: str, digest: str, judged: str | None) -> Provenance:
    """Find out where an encoder is from.

    Args:
        source: as for ``load_encoder``.
        digest: of the encoder.
        judged: a folder with results, path or URL; None for none. It need not exist.

    Raises:
        ShardError: A file is damaged.
        CareError: The folder has another program's results.
    """
    training = dict[str, str]()
    data = ""
    folders = [judged] if judged else []
    if not source.startswith(("random:", "supervised:")):
        place = parse_source(source).place
        run = place
        if storage.locate(place).is_file():
            run = place.rpartition("/")[0] or "."
        folders.append(run)
        training = _settings(run)
        data = str((recorded_settings(run) or {}).get("data", ""))
    return Provenance(training, data, _results(folders, digest))


def _settings(run: str) -> dict[str, str]:
    """What a run or pipeline was asked for, without places: what is shared names no folder."""
    settings = settings_of_run(run)
    if not settings and RESULTS in storage.listing(run):
        content = storage.read_json(f"{run}/{RESULTS}")
        rows = evaluations(content, f"{run}/{RESULTS}")
        settings = settings_of_pipeline(content, rows)
    texts = {name: text for name, text in settings.items() if name not in _PRIVATE}
    images = settings.get("images")
    if images is not None:
        count, _, rest = images.partition(" of ")
        place, _, epochs = rest.rpartition(", each ")
        texts["images"] = f"{count} of {PurePosixPath(place).name}, each {epochs}"
    return texts


def _results(folders: Sequence[str], digest: str) -> list[Row]:
    """The evaluations of the encoder with a digest, in and below folders, each once."""
    rows = list[Row]()
    for folder in folders:
        names = storage.listing(folder, deep=True)
        if not any(PurePosixPath(name).name == RESULTS for name in names):
            continue
        every = gather(folder)
        for row, result in zip(every, read(every), strict=True):
            plain = {name: value for name, value in row.items() if name != "file"}
            if result.digests.get("encoder") == digest and plain not in rows:
                rows.append(plain)
    return rows


def check_folder(folder: str | None) -> None:
    """Refuse a folder of results that was named and is not there.

    Raises:
        CareError: It does not exist.
    """
    if folder is not None and not storage.locate(folder).exists():
        raise CareError(f"{folder} does not exist; wanted a folder of `care evaluate`")
