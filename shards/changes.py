"""What has changed in a source since a build has read it, of equal names and sizes."""

import itertools
from collections.abc import Collection, Sequence
from shards import storage
from shards.contents import contents_of
from shards.errors import ShardError
from shards.index import Index
from shards.plan import Plan, missing_shards, record_name
from shards.records import Records
from shards.sources.candidates import Candidate, is_elsewhere

_NAMED = 3  # names in a message


def refuse_changed(plan: Plan, index: Index) -> None:
    """Refuse a set whose source has other contents by now.

    Args:
        plan: of a build of the source as it is.
        index: of the set, which has the same plan.

    Raises:
        ShardError: Some images were changed since the set was built.
    """
    images = [image for shard in plan.shards for image in shard]
    contents = contents_of(images)
    names = _changed_samples(index, images, contents)
    if not names and index.contents in ("", storage.digest(contents)):
        return
    examples = f" (such as {', '.join(names[:_NAMED])})" if names else ""
    raise ShardError(
        f"{index.path} was built of other contents: images of its source have changed since"
        f"{examples}; remove it or choose another DEST"
    )


def _changed_samples(
    index: Index, images: Sequence[Candidate], contents: Sequence[int]
) -> list[str]:
    """Names of images that are in a set as their files were, with another content.

    A sample that was converted has a length of its own and is not among them.
    """
    rows = dict(zip(index.keys.tolist(), index.samples.tolist(), strict=True))
    changed = list[str]()
    for image, content in zip(images, contents, strict=True):
        _, length, crc32, *_ = rows.get(image.key, (0, -1, 0))
        if length == image.size and crc32 != content:
            changed.append(image.name)
    return sorted(changed)


def forget_changed(plan: Plan, records: Records, names: Collection[str]) -> list[str]:
    """Remove what says that shards are written of which images have changed since.

    Where the images are in an object store, what is written is trusted: to compare it, all would
    be fetched again.

    Args:
        plan: of a build of the source as it is.
        records: of the unfinished set, which has the same plan.
        names: of the files in its folder.

    Returns:
        The names that are left.
    """
    written = {*range(len(plan.shards))}.difference(missing_shards(plan, names))
    contents = {number: records[number].contents for number in written}
    compared = [
        number
        for number in sorted(written)
        if not (contents[number] and any(is_elsewhere(i.path) for i in plan.shards[number]))
    ]
    now = iter(contents_of([image for number in compared for image in plan.shards[number]]))
    remaining = {*names}
    for number in compared:
        if contents[number] != [*itertools.islice(now, len(plan.shards[number]))]:
            records.remove(number)
            remaining.discard(record_name(number))
    return sorted(remaining)
