"""Random images for the tests of this folder."""

import io
import numpy as np
from PIL import Image


def image_bytes(seed=0, size=(20, 16), mode="RGB", file_format="PNG", **options):
    """A small random image as a file's bytes."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return encoded(Image.frombytes(mode, size, pixels.tobytes()), file_format, **options)


def encoded(image, file_format="PNG", **options):
    """A Pillow image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def populate(root, names, seed=0):
    """An image at every one of ``names`` below ``root``."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file_format = "JPEG" if file.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        file.write_bytes(image_bytes(seed + number, file_format=file_format))
    return root


def spoil(root):
    """One file for every reason to reject it, and two good images."""
    populate(root, ["cat/ok.jpg", "dog/ok.png", "stray.jpg"])
    (root / "cat" / "empty.jpg").touch()
    (root / "cat" / "text.jpg").write_text("not an image")
    (root / "cat" / "half.png").write_bytes(image_bytes()[:300])
    (root / "dog" / "gone.jpg").symlink_to("nowhere")
    (root / "dog" / "notes.txt").write_text("notes")
    return root
