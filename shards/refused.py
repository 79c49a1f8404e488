"""A build that was refused for its rejects: their whole list, and a next build that begins anew."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from shards import storage
from shards.plan import Plan, record_name, tar_name
from shards.records import Records, numbers_of

# in the folder of a set that was refused, until the set is built
LIST = "rejects.tsv"


def write_list(dest: Path, rejects: Mapping[str, Sequence[str]]) -> None:
    """Write why and what was rejected, a line a name, into the folder of a refused set.

    Args:
        dest: the set's folder.
        rejects: names by reason.
    """
    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", lineterminator="\n")
    rows.writerow(("reason", "name"))
    for reason, names in rejects.items():
        rows.writerows((reason, name) for name in names)
    # names as the disk has them, also where they are no UTF-8
    storage.write_bytes(dest / LIST, text.getvalue().encode(errors="surrogateescape"))


def forget_refused(plan: Plan, root: Path, records: Records, names: Sequence[str]) -> list[str]:
    """Remove what a refused build has written of a source that was repaired since.

    Only where a build was refused: one that was interrupted is not lost to a mistyped command.

    Args:
        plan: of this build.
        root: the set's folder.
        records: of the shards in it.
        names: of the files in it.

    Returns:
        The names that are left.
    """
    if LIST not in names or "index.json" in names:
        return list(names)
    written = numbers_of(names)
    kept = {number for number in written if records[number].plan == plan.digest}
    # records first: a shard without one is written again
    stale_numbers = [number for number in written if number not in kept]
    for number in stale_numbers:
        records.remove(number)
    kept_tars = {*map(tar_name, kept)}
    stale_tars = [name for name in names if name.endswith(".tar") and name not in kept_tars]
    for name in stale_tars:
        storage.remove(root / name)
    stale = {*map(record_name, stale_numbers), *stale_tars}
    return [name for name in names if name not in stale]


def remove_list(dest: Path) -> None:
    """Remove the list of a set that is built by now."""
    if LIST in storage.listing(dest):
        storage.remove(dest / LIST)
