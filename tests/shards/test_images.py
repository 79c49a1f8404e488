import csv
import io
import json
import resource
import subprocess
import sys
import numpy as np
import pytest
from made_images import encoded, image_bytes
from PIL import Image, ImageOps
from shards import Reject, ShardError, decode, images
from shards.images import check
from shards.pixels import PixelRule
from shards.rejects import RejectError


def refusal(data, validate):
    try:
        check(data, validate)
    except RejectError as error:
        return error.reason


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "PPM"),
    ],
)
def test_opaque_modes_are_pillows_rgb(mode, file_format):
    data = image_bytes(mode=mode, file_format=file_format)
    got = decode(data)
    assert got.mode == "RGB"
    np.testing.assert_array_equal(got, Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode):
    data = image_bytes(mode=mode)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), np.float64)
    alpha = pixels[..., 3:] / 255
    np.testing.assert_allclose(decode(data), pixels[..., :3] * alpha + 255 * (1 - alpha), atol=1)


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    got = decode(encoded(image, transparency=0))
    assert got.getpixel((0, 0)) == (255, 255, 255)
    assert got.getpixel((1, 1)) == (200, 10, 10)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        (np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[-5, 513, 65535, 70000]], np.int32), [0, 2, 255, 255]),
    ],
)
def test_wide_integers_lose_their_low_byte(values, want):
    got = decode(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(got)[0, :, 0].tolist() == want


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0, 0.5, 1, np.nan], [0, 128, 255, 0]),
        ([-3, 7.6, 255, 1e9], [0, 8, 255, 255]),
    ],
)
def test_floats_of_unit_range_are_scaled_and_others_clipped(values, want):
    image = Image.fromarray(np.array([values], np.float32))
    got = decode(encoded(image, "TIFF"))
    assert np.asarray(got)[0, :, 1].tolist() == want


def test_lab_becomes_rgb():
    got = decode(encoded(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF")).getpixel((0, 0))
    assert min(got) >= 250


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_frame_of_an_animation(file_format):
    red = Image.new("RGB", (8, 8), "red")
    blue = Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if file_format == "WEBP" else {}
    animation = encoded(red, file_format, save_all=True, append_images=[blue], **options)
    assert Image.open(io.BytesIO(animation)).n_frames == 2
    for rule in (None, PixelRule(), PixelRule(bands=(1, 2, 3))):
        assert decode(animation, rule).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG"])
def test_exif_orientation(orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes(size=(9, 5), file_format=file_format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data), upright)


def test_a_broken_exif_block_counts_as_none():
    data = image_bytes(file_format="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data).size == (20, 16)


PNG = image_bytes(size=(200, 200))


@pytest.mark.parametrize(
    ("data", "reason", "by_header"),
    [
        (b"", Reject.EMPTY, Reject.EMPTY),
        (b"text", Reject.NOT_AN_IMAGE, Reject.NOT_AN_IMAGE),
        (PNG[: len(PNG) // 2], Reject.CORRUPT, None),
        (image_bytes(size=(99, 99), file_format="JPEG")[:-500], Reject.CORRUPT, None),
        (encoded(Image.new("1", (10_000, 9_000))), Reject.TOO_LARGE, Reject.TOO_LARGE),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            Reject.NOT_AN_IMAGE,
            Reject.NOT_AN_IMAGE,
        ),
        (PNG, None, None),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_refusal_has_its_reason(data, reason, by_header):
    assert refusal(data, "decode") == reason
    assert refusal(data, "header") == by_header
    assert refusal(data, "none") == (Reject.EMPTY if not data else None)
    assert not data or check(data, "none") == 0
    if reason:
        with pytest.raises(ShardError, match=f"{reason}.*remove the file"):
            decode(data)


def test_no_memory_is_a_reason(monkeypatch):
    def exhausted(image):
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", exhausted)
    assert refusal(PNG, "decode") == Reject.TOO_LARGE


def test_the_exif_corpus_is_upright(unpacked):
    files = sorted(unpacked("exif-orientation.tar").rglob("*.jpg"))
    assert len(files) == 18
    for file in files:
        want = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        np.testing.assert_array_equal(decode(file.read_bytes()), want)
        assert want.width > want.height or "Portrait" in file.name


PROBE = """
import json, sys, time, warnings
from pathlib import Path
from shards import ShardError, decode
from shards.images import check
from shards.pixels import PixelRule
from shards.rejects import RejectError
warnings.simplefilter("ignore")
for name in sys.stdin.read().split("\\n"):
    data, began, reason = Path(name).read_bytes(), time.process_time(), None
    try:
        check(data, "decode")
    except RejectError as error:
        reason = error.reason
    seconds = time.process_time() - began
    try:
        decode(data)
        agrees = reason is None
    except ShardError:
        agrees = reason is not None
    # of this program's own memory: ru_maxrss remembers that of the process which forked it
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps([name, reason, agrees, seconds, int(peak) // 1024]), flush=True)
"""


def probe(names):
    """What ``PROBE`` prints of each file, in a child of two gigabytes and a minute of CPU."""

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    child = subprocess.run(
        [sys.executable, "-c", PROBE],
        input="\n".join(names),
        capture_output=True,
        text=True,
        preexec_fn=limits,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return [json.loads(line) for line in child.stdout.splitlines()]


def test_malformed_files_are_refused_cleanly_in_bounded_memory_and_time(unpacked):
    root = unpacked("malformed.tar") / "malformed"
    with (root / "expected.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    results = probe([str(root / row["file"]) for row in rows])
    assert len(results) == len(rows) == 231
    assert all(agrees for _, _, agrees, _, _ in results)
    assert max(seconds for *_, seconds, _ in results) < 2
    assert max(megabytes for *_, megabytes in results) < 1000
    broken_but_taken = []
    fine_but_refused = []
    for row, (_, reason, *_) in zip(rows, results, strict=True):
        fine = row["pil13_outcome"] == "ok"
        if fine and reason:
            fine_but_refused.append(row["file"])
        if not fine and not reason:
            broken_but_taken.append(row["file"])
    assert broken_but_taken == []
    # four of the odd files are damaged: Pillow raises at their first load(), and passes only a
    # second one
    assert len(fine_but_refused) == 4
    for name in fine_but_refused:
        with pytest.raises((OSError, SyntaxError)), Image.open(root / name) as image:
            image.load()
