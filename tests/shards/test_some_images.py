"""Some images to look at, whatever holds them."""

import numpy as np
import pytest
from PIL import Image
import shards
from shards import ShardError
from shards.some_images import some_images, spread


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(12):
        path = folder / ("ant", "bee", "cat")[number // 4] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number, 0, 0)).save(path)
    return folder


def reds(images):
    return [int(np.asarray(named.image)[0, 0, 0]) for named in images]


@pytest.mark.parametrize(
    ("total", "count", "numbers"), [(12, 3, [0, 4, 8]), (5, 2, [0, 2]), (2, 9, [0, 1]), (0, 3, [])]
)
def test_numbers_are_spread_evenly(total, count, numbers) -> None:
    assert list(spread(total, count)) == numbers


def test_of_a_folder_they_are_of_all_its_classes(photos) -> None:
    images = some_images(photos, 3)
    assert reds(images) == [0, 4, 8]
    assert [named.name for named in images] == ["ant/00.png", "bee/04.png", "cat/08.png"]
    assert reds(some_images(photos, 100)) == list(range(12))


def test_of_a_shard_set_they_are_its_samples(photos, tmp_path) -> None:
    shards.build(photos, tmp_path / "set", workers=1)
    data = shards.open(tmp_path / "set")
    images = some_images(tmp_path / "set", 4)
    assert [named.name for named in images] == [data.keys[n] for n in (0, 3, 6, 9)]
    assert np.array_equal(images[1].image, data.image(3))


def test_one_file_is_one_image(photos) -> None:
    (named,) = some_images(photos / "bee" / "05.png", 8)
    assert named.name == "05.png"
    assert reds([named]) == [5]


def test_what_does_not_decode_is_told_and_passed_over(photos, capsys) -> None:
    (photos / "ant" / "00.png").write_bytes(b"no image at all")
    assert reds(some_images(photos, 3)) == [4, 8]
    assert "ant/00.png is passed over: " in capsys.readouterr().err


def test_where_there_is_none_it_says_what_was_looked_at(photos, tmp_path) -> None:
    for path in photos.glob("*/*.png"):
        path.write_bytes(b"no image at all")
    with pytest.raises(ShardError, match=r"none of the 2 images of .*photos that were tried"):
        some_images(photos, 2)
    with pytest.raises(ShardError, match=r"cannot read .*05\.png"):
        some_images(photos / "bee" / "05.png", 1)
    with pytest.raises(ShardError, match="nowhere"):
        some_images(tmp_path / "nowhere", 1)
    with pytest.raises(ShardError, match=r"nowhere\.png"):
        some_images(tmp_path / "nowhere.png", 1)
