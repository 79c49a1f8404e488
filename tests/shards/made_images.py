"""Random images for the tests of this folder."""

import io
import numpy as np
from PIL import Image


def image_bytes(seed=0, size=(20, 16), mode="RGB", format="PNG", **options):
    """A small random image as a file's bytes."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.frombytes(mode, size, pixels.tobytes()).save(out, format, **options)
    return out.getvalue()


def populate(root, names, seed=0):
    """An image at every one of ``names`` below ``root``."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        format = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(file.suffix.lower(), "PNG")
        file.write_bytes(image_bytes(seed + number, format=format))
    return root
