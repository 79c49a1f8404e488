"""A build that was refused for its rejects: their whole list, and a next build that begins anew."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from shards import storage
from shards.plan import Plan, is_record, record_name, tar_name

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


def forget_refused(plan: Plan, root: Path, names: Sequence[str]) -> list[str]:
    """Remove what a refused build has written of a source that was repaired since.

    Only where a build was refused: one that was interrupted is not lost to a mistyped command.

    Args:
        plan: of this build.
        root: the set's folder.
        names: those in it.

    Returns:
        The names that are left.
    """
    if LIST not in names or "index.json" in names:
        return list(names)
    kept = set[str]()
    for number in range(len(plan.shards)):
        name = record_name(number)
        if name in names and storage.read_json(root / name)["plan"] == plan.digest:
            kept |= {name, tar_name(number)}
    stale = {name for name in names if is_record(name) or name.endswith(".tar")} - kept
    # records first: a shard without one is written again
    for name in sorted(stale):
        storage.remove(root / name)
    return [name for name in names if name not in stale]


def remove_list(dest: Path) -> None:
    """Remove the list of a set that is built by now."""
    if LIST in storage.listing(dest):
        storage.remove(dest / LIST)
