"""At which size encoders are judged that stand in one table: at that of the first that has one."""

from collections.abc import Sequence
from care.train.load import trained_size
from shards.image_size import ImageSize
from shards.progress import say


def common_sizes(sources: Sequence[str]) -> list[ImageSize | None]:
    """Find a size for each encoder of a command that names none.

    What was trained here is judged at the size of its training. All others, such as baselines, are
    judged at that of the first of these, which is said: at another one they are other encoders.

    Args:
        sources: of the encoders.

    Returns:
        Sizes of the images in pixels; None for all where no encoder has a size of its own.
    """
    sizes = [trained_size(source) for source in sources]
    trained = [(size, source) for size, source in zip(sizes, sources, strict=True) if size]
    if not trained:
        return sizes
    common, first = trained[0]
    others = [source for source, size in zip(sources, sizes, strict=True) if size is None]
    if others:
        verb = "is" if len(others) == 1 else "are"
        say(
            f"{', '.join(others)} {verb} judged at {common} px, the size of {first}; "
            "--size sets another for all"
        )
    return [size or common for size in sizes]
