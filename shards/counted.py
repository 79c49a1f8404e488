"""Counts of images as sentences have them: one image is, two images are."""


def images_that(count: int, singular: str, plural: str, *, total: int | None = None) -> str:
    """How many images do something, with the verb that fits.

    Args:
        count: how many do.
        singular: the verb of one, such as "is".
        plural: that of several, such as "are".
        total: how many images there are, where that is said, too.

    Returns:
        Such as "1 image is", "2,000 images are", "1 of 12 images is".
    """
    verb = singular if count == 1 else plural
    if total is not None:
        return f"{count:,} of {total:,} images {verb}"
    noun = "image" if count == 1 else "images"
    return f"{count:,} {noun} {verb}"
