"""The folders of rendered scenes among the user's caches, so that equal ones are rendered once."""

import hashlib
from pathlib import Path
from shards import locks, scene_shapes, scenes
from shards.cache import Cache

SECONDS_TO_WAIT = 600  # for another process that renders the same scenes
_CODE = (scenes, scene_shapes)


def images_of(source: str, annotated: bool, seed: int) -> str:
    """What there is to build a shard set from, in place of a source.

    Args:
        source: what ``shards.sources.find`` takes, or ``scenes:START+COUNT`` for procedural scenes,
            which are rendered unless they are in the cache.
        annotated: whether the boxes and masks of scenes are wanted, not only their classes.
        seed: seed of the scenes.

    Returns:
        The source itself, or the folder of the scenes: class folders of images, or with
        ``annotated`` COCO's ``annotations.json`` beside ``images``.
    """
    if not source.startswith("scenes:"):
        return source
    start, count = map(int, source.removeprefix("scenes:").split("+"))
    folder = rendered_scenes(seed, start, count)
    return str(folder if annotated else folder / "images")


def rendered_scenes(seed: int, start: int, count: int) -> Path:
    """The cached folder of some scenes, which are rendered if it is not there.

    Its name has a digest of the code that renders: an edit of that code makes new scenes.

    Args:
        seed: seed of the scenes.
        start: number of the first scene.
        count: how many scenes.
    """
    code = _digest_of_code()
    name = f"{seed}-{start}-{count}-{code[:8]}"
    folder = Cache().folder.parent / "scenes" / name
    lock = folder.with_name(f".{name}")
    with locks.exclusive(lock, "rendering", patience=SECONDS_TO_WAIT):
        if not folder.exists():
            scenes.write(folder, count=count, seed=seed, start=start)
    return folder


def _digest_of_code() -> str:
    """A digest of the modules that decide the pixels."""
    texts = [Path(str(module.__file__)).read_bytes() for module in _CODE]
    return hashlib.sha256(b"".join(texts)).hexdigest()
