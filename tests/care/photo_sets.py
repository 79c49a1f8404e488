"""Small sets of made-up photographs, built as a user builds them."""

import shards


def build(folder, make_image, names, broken=(), **options):
    """The set of images of these names, of which some are cut off, built below a folder."""
    for n, name in enumerate(names):
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        make_image(n).save(file)
        if name in broken:
            file.write_bytes(file.read_bytes()[:-200])
    shards.build(folder / "photos", folder / "set", workers=1, **options)
    return shards.open(folder / "set")
