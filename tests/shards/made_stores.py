"""Emulators of object stores for the tests of this folder."""

import shutil
import socket
import subprocess
import time
import pytest
from shards import objects

# Azurite's, published
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def azurite(folder):
    """The program of Microsoft's emulator, installed if it is not in ``folder``."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm, which is not installed")
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        install = [npm, "install", "--silent", "azurite"]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            pytest.skip("npm could not install Azurite")
    return program


def make_bucket(url, seconds):
    """Make a bucket as soon as its server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            store, name = objects.file_system(url)
            store.mkdir(name)
            return
        except Exception:
            assert time.monotonic() < deadline, f"no server for {url}"
            time.sleep(0.3)
