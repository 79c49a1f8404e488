import pytest
from care.train.batch_size import default_batch_size, suitable_batch_size
from shards import storage


@pytest.mark.parametrize(
    ("images", "parts", "wanted"),
    [
        (1_281_167, 1, 1024),
        (4096, 1, 1024),
        (4095, 1, 512),
        (240, 1, 32),
        (24, 1, 4),
        (5, 1, 2),
        # as many images for each process, two at least, for batch norm
        (1_281_167, 8, 1024),
        (1_281_167, 3, 768),
        (240, 6, 48),
        (10, 4, 8),
    ],
)
def test_a_batch_leaves_an_epoch_four_steps(images: int, parts: int, wanted: int) -> None:
    assert suitable_batch_size(images, parts=parts) == wanted


def test_a_run_that_goes_on_keeps_its_batch(tmp_path) -> None:
    assert default_batch_size(tmp_path / "new", 240) == 32
    place = tmp_path / "run" / "checkpoints" / "step-00000002" / "manifest.json"
    place.parent.mkdir(parents=True)
    storage.write_json(place, {"settings": {"batch_size": 24}})
    assert default_batch_size(tmp_path / "run", 240) == 24
