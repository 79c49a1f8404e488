import os
import sys
import tempfile
from pathlib import Path
import pytest
from PIL import Image

# Prefect's database of the tests, not the user's; Prefect reads this at import
_home = tempfile.TemporaryDirectory(prefix="prefect-")
os.environ["PREFECT_HOME"] = _home.name


@pytest.fixture
def care(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line; gives (exit code, standard output, standard error)."""
    from flows.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["care", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two classes of 12 images of noise each."""
    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((40, 40), 20 + 200 * (number % 2))
        noise.convert("RGB").save(path)
    return tmp_path / "photos"
