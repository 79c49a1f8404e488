import pytest
from made_images import populate


@pytest.fixture
def photos(tmp_path):
    """Two classes of nine and eight images."""
    return populate(
        tmp_path / "photos", [f"{c}/{i}.jpg" for c, n in (("cat", 9), ("dog", 8)) for i in range(n)]
    )
