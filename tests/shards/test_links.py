"""Tables of links: dead ones, signed ones, and hosts that do not answer."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import pytest
from made_images import image_bytes
import shards
from shards import Reject, ShardError, fetch, objects
from shards.sources import find
from shards.sources.links import public_names

aiohttp = pytest.importorskip("aiohttp")


class Host:
    """A web server: /N.jpg?w=5 and /photo/N are images, /STATUS fails so."""

    def __init__(self):
        self.paths = []
        self.barrier = None
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                host.paths.append(self.path)
                if host.barrier:
                    host.barrier.wait(timeout=20)
                name = self.path.partition("?")[0].rpartition("/")[2].partition(".")[0]
                status = int(name) if len(name) == 3 else 200
                data = image_bytes(int(name), file_format="PNG") if status == 200 else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(objects, "PAUSES", (0.01, 0.01))
    host = Host()
    yield host
    host.server.shutdown()


def table_of(path, links):
    path.write_text("".join(f"{line}\n" for line in ("url", *links)))
    return path


def test_links_are_fetched_whatever_their_form(host, tmp_path):
    links = [f"{host.address}/{name}" for name in ("1.jpg?w=500", "photo/2", "3.php?id=3")]
    index = shards.build(table_of(tmp_path / "links.csv", links), tmp_path / "set", max_rejects=0)
    assert (len(index.samples), dict(index.rejects)) == (3, {})
    assert len({sample.data for sample in shards.open(tmp_path / "set")}) == 3


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500])
def test_a_link_that_fails_is_a_reject_of_its_row(host, tmp_path, status):
    links = [f"{host.address}/1.jpg", f"{host.address}/{status}.jpg", "http://127.0.0.1:9/2.jpg"]
    table = table_of(tmp_path / "links.csv", links)
    with pytest.raises(ShardError, match=r"2 of 3 images .* 2 link not fetched"):
        shards.build(table, tmp_path / "set")
    tries = [path for path in host.paths if "1.jpg" not in path]
    assert len(tries) == (3 if status in (429, 500) else 1)
    # the links are tried again
    index = shards.build(table, tmp_path / "set", max_rejects=0.9)
    assert {reason: len(names) for reason, names in index.rejects.items()} == {
        Reject.NOT_FETCHED: 2
    }


def test_many_links_are_fetched_at_once(host, tmp_path):
    host.barrier = threading.Barrier(fetch.CONNECTIONS)  # which one at a time would break
    links = [f"{host.address}/{number}.png" for number in range(2 * fetch.CONNECTIONS)]
    table = table_of(tmp_path / "links.csv", links)
    index = shards.build(table, tmp_path / "set", max_rejects=0, workers=1)
    assert len(index.samples) == len(links)


def test_a_host_that_does_not_answer_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(objects, "PAUSES", (0, 0))
    links = []

    class Client:
        def cat_file(self, link):
            links.append(link)
            if "gone" in link:
                raise TimeoutError
            return image_bytes(int(link.rpartition("/")[2]))

    monkeypatch.setattr(fetch, "http_client", Client)
    table = table_of(
        tmp_path / "links.csv",
        [f"https://{host}/{number}" for number in range(300) for host in ("gone", "here")],
    )
    with pytest.raises(ShardError, match=r"300 of 600 images .* 300 link not fetched"):
        shards.build(table, tmp_path / "set", workers=1)
    assert sum("here" in link for link in links) == 300
    # those that are under way when the host is given up may be tried three times each
    assert sum("gone" in link for link in links) <= 3 * (fetch.PATIENCE + fetch.CONNECTIONS)
    assert capsys.readouterr().err.count("gone does not answer") == 1


def test_a_link_of_two_rows_is_one_sample(host, tmp_path):
    table = table_of(tmp_path / "links.csv", [f"{host.address}/1", f"{host.address}/1"])
    source = find(table)
    assert (len(source.samples), [reason for reason, _ in source.rejects]) == (
        1,
        [Reject.DUPLICATE],
    )


# signed links


SIGNED = {
    "s3": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101%2Feu%2Fs3"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-Signature={}",
    "s3-v2": "AWSAccessKeyId=AKIA&Expires=1767225600&Signature={}%3D",
    "google": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Expires=60&X-Goog-Signature={}",
    "cloudfront": "Expires=1767225600&Signature={}__&Key-Pair-Id=K2",
    "azure": "sv=2024-01-01&se=2026-01-01T00%3A00%3A00Z&sr=b&sp=r&sig={}%3D",
    "token": "token={}",
}


@pytest.mark.parametrize("form", SIGNED)
def test_signed_links_are_fetched_as_they_are_and_named_without_their_secrets(host, tmp_path, form):
    def links(signature):
        query = SIGNED[form].format(signature)
        return [f"{host.address}/{number}.png?w=9&{query}" for number in range(3)]

    index = shards.build(table_of(tmp_path / "a.csv", links("mine")), tmp_path / "set")
    assert sorted(host.paths) == [link.removeprefix(host.address) for link in links("mine")]
    assert all(b"mine" not in path.read_bytes() for path in (tmp_path / "set").iterdir())
    assert {name.rpartition("/")[2] for name in index.keys.tolist()} == {"0", "1", "2"}
    # signed anew, it is the same set
    again = shards.build(table_of(tmp_path / "b.csv", links("another")), tmp_path / "set")
    assert again.digest == index.digest


def test_links_that_differ_in_a_secret_alone_are_not_merged():
    names = public_names([f"https://host/get?key={number}&w=9" for number in (1, 2, 1)])
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("https://host/get?w=9#") for name in names)


def test_names_of_other_links_stay():
    links = [
        "https://host/a.jpg",
        "https://host/a.jpg?w=500&se=1&expires=2",
        "https://host/?id=token",
    ]
    assert public_names(links) == links
    assert public_names(["https://me:word@host/a.jpg"]) == ["https://host/a.jpg"]
