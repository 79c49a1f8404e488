import os
import socket
import sys
import tempfile
from pathlib import Path
import pytest
import torch
from commands import fork
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


class ForkedOrigin:
    """The process that stages are forked from, as ``Children`` wants it."""

    def __init__(self, process) -> None:
        self.kill, self.wait = process.kill, process.join
        self._process = process

    def poll(self) -> int | None:
        return self._process.exitcode


@pytest.fixture
def forked_origin(monkeypatch: pytest.MonkeyPatch):
    """That process is a fork of this one, instead of a new one that imports for seconds."""
    from flows import child, works
    from flows.supervise import Children

    def be_origin(connection: socket.socket, other_end: socket.socket) -> None:
        connection.close()
        child.serve(other_end)

    def start_origin(children: Children) -> None:
        children._connection, other_end = socket.socketpair()
        with other_end:
            children._origin = ForkedOrigin(fork(be_origin, children._connection, other_end))

    works.import_all()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # those of before the fork are lost
    monkeypatch.setattr(Children, "_start_origin", start_origin)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two classes of 12 images of noise each."""
    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((40, 40), 20 + 200 * (number % 2))
        noise.convert("RGB").save(path)
    return tmp_path / "photos"
