"""Secrets that are planted in links and in the environment are in nothing that is written."""

import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
import pytest
from commands import TINY, care, environment, options
from PIL import Image

pytestmark = pytest.mark.flows
SECRETS = {
    "signature": "planted-signature-8d1f",
    "password": "planted-password-5b70",
    "token": "planted-token-c2a9",
    "key": "planted-key-77e4",
}


@pytest.fixture
def address() -> Iterator[str]:
    """A web server that has an image of noise for every path but /gone."""
    pytest.importorskip("aiohttp")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            noise = Image.effect_noise((40, 40), random.uniform(20, 220)).convert("RGB")
            noise.save(data := BytesIO(), "PNG")
            self.send_response(403 if self.path.startswith("/gone") else 200)
            self.end_headers()
            self.wfile.write(data.getvalue())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def write_table(path: Path, address: str, dead: int = 0) -> Path:
    """A table of links with signatures, tokens and passwords, of which some lead to nothing."""
    signature, password, token = SECRETS["signature"], SECRETS["password"], SECRETS["token"]
    lines = ["url,label"]
    for number in range(40):
        name = f"gone/{number}.png" if number < dead else f"{number}.png"
        forms = (
            f"http://{address}/{name}?X-Amz-Expires=60&X-Amz-Signature={signature}",
            f"http://user:{password}@{address}/{name}",
            f"http://{address}/{name}?w=40&token={token}",
        )
        lines.append(f"{forms[number % len(forms)]},{'ab'[number % 2]}")
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def run(tmp_path: Path):
    """Runs a command with secrets in its environment, and gives what it printed."""

    def run_command(*arguments: object) -> str:
        variables = environment(
            PREFECT_HOME=str(tmp_path / "home"),
            HF_TOKEN=SECRETS["key"],
            AWS_SECRET_ACCESS_KEY=SECRETS["key"],
            AZURE_STORAGE_CONNECTION_STRING=f"AccountName=a;AccountKey={SECRETS['key']}",
        )
        process = care(*arguments, env=variables, cwd=tmp_path)
        output: str = process.communicate(timeout=580)[0]
        assert process.returncode == 0, output
        return output

    return run_command


def check_written(folder: Path, table: Path) -> set[str]:
    """No file but the table has a secret; the names of the files."""
    files = [file for file in folder.rglob("*") if file.is_file() and file != table]
    for kind, secret in SECRETS.items():
        assert [file for file in files if secret.encode() in file.read_bytes()] == [], kind
    return {file.name for file in files}


def test_a_build_with_dead_links_names_them_without_secrets(run, address, tmp_path: Path) -> None:
    table = write_table(tmp_path / "table" / "links.csv", address, dead=3)
    output = run("shards", "build", table, "set", "--max-rejects", "0.2")
    output += run("shards", "info", "set", "--json") + run("shards", "verify", "set")
    assert output.count("/gone/") >= 3
    assert not [kind for kind, secret in SECRETS.items() if secret in output]
    assert "index.json" in check_written(tmp_path, table)


@pytest.mark.parametrize("engine", [["--plain"], []], ids=["plain", "Prefect"])
def test_a_pipeline_writes_and_prints_no_secret(run, address, tmp_path: Path, engine) -> None:
    table = write_table(tmp_path / "table" / "links.csv", address)
    settings = options({name: TINY[name] for name in TINY if "scenes" not in name})
    output = run("pipeline", "run", "--images", table, "--out", "lab", *settings, *engine)
    assert not [kind for kind, secret in SECRETS.items() if secret in output]
    names = check_written(tmp_path, table)
    assert {"results.json", "report.html"} <= names
    assert engine or "prefect.db" in names
