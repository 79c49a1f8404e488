"""A check of a JPEG without its pixels has the outcome of decoding it whole."""

import random
import pytest
from made_images import image_bytes
from shards.images import check, decode
from shards.jpegs import without_pixels
from shards.rejects import RejectError

START_OF_SCAN = b"\xff\xda"
END_OF_IMAGE = b"\xff\xd9"
KINDS = {
    "plain": {},
    "gray": {"mode": "L"},
    "inks": {"mode": "CMYK"},
    "full colour": {"subsampling": 0},
    "own tables": {"optimize": True},
    "restarts": {"restart_marker_blocks": 2},
    "progressive": {"progressive": True},
}


def jpeg(**options):
    return image_bytes(file_format="JPEG", size=(41, 29), **options)


def outcome(action, data):
    """None, or why an image is refused."""
    try:
        action(data)
    except RejectError as error:
        return error.reason
    return None


def damaged(data, rng):
    """A JPEG with a few bytes changed, put in or taken out, among its pixels or anywhere."""
    spoiled = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        first = rng.choice((2, data.index(START_OF_SCAN)))
        place = rng.randrange(min(first, len(spoiled) - 1), len(spoiled))
        way = rng.randrange(4)
        if way == 0:
            spoiled[place] = rng.choice((0xFF, 0, 0xD9, rng.randrange(256)))
        elif way == 1:
            spoiled[place:place] = bytes((0xFF, rng.randrange(256)))
        elif way == 2:
            del spoiled[place : place + rng.choice((1, 9))]
        elif rng.random() < 0.2:
            del spoiled[place:]
    return bytes(spoiled)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_the_check_says_what_decoding_says(kind):
    whole = jpeg(**KINDS[kind])
    rng = random.Random(0)
    outcomes = set()
    for _ in range(400):
        data = damaged(whole, rng)
        reason = outcome(decode, data)
        assert outcome(lambda file: check(file, "decode"), data) == reason
        outcomes.add(reason)
    assert {None, "corrupt image"} <= outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_left_out_of_sequential_ones_alone(kind):
    data = jpeg(**KINDS[kind])
    shortened = without_pixels(data)
    if kind == "progressive":
        assert shortened is data
    else:
        start = data.index(START_OF_SCAN)
        header = data[: start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
        assert shortened == header + END_OF_IMAGE


@pytest.mark.parametrize("end", [-1, -2, -10])
def test_what_lacks_its_end_is_decoded_whole_and_refused(end):
    data = jpeg()[:end]
    assert without_pixels(data) is data
    with pytest.raises(RejectError, match="truncated"):
        check(data, "decode")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG", b"\xff\xd8\xff\xe0\x00\x00" * 9])
def test_other_bytes_stay_as_they_are(data):
    assert without_pixels(data) is data


def test_orientation_and_what_follows_the_image_do_not_matter():
    data = jpeg()
    assert without_pixels(data + b"anything \xff\xda") == without_pixels(data)
    for turn in (1, 6):
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0" % turn
        assert check(jpeg(exif=exif), "decode") == turn
