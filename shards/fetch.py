"""Images behind links, fetched while others are written: many at once, and with bounded patience.

A link may be dead, and so may be the host of half of a list. Such are waited for together, and a
host that does not answer is given up: its other links are tried by the next build.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from shards import objects
from shards.errors import ShardError
from shards.progress import warn
from shards.rejects import Reject, RejectError
from shards.sources.candidates import MAX_BYTES, Candidate, is_link, read_image

CONNECTIONS = 16  # that fetch for a shard
AHEAD = 64  # links that are fetched before they are due
PATIENCE = 3  # links of a host in a row without an answer; then it is given up
# seconds until a host answers, until it goes on, and for all of an image
_TIMEOUTS = {"sock_connect": 10.0, "sock_read": 20.0, "total": 120.0}
_AGAIN = (408, 425, 429)  # "too slow", "too early" and "too many" may change


@contextmanager
def reading(images: Sequence[Candidate]) -> Iterator[Callable[[Candidate], bytes]]:
    """A function that reads each of some images, in their order, as ``read_image`` does.

    Links among them are fetched ahead.

    Args:
        images: in the order in which they will be read.
    """
    links = [image.path for image in images if is_link(image.path)]
    if not links:
        yield read_image
        return
    fetcher = _Fetcher(links)
    try:
        yield fetcher.read
    finally:
        fetcher.close()


def http_client() -> Any:
    """What fetches links.

    Raises:
        ShardError: Nothing that is installed can.
    """
    import fsspec

    try:
        import aiohttp

        timeout = aiohttp.ClientTimeout(**_TIMEOUTS)
        return fsspec.filesystem(
            "https",
            client_kwargs={"timeout": timeout},
            encoded=True,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
    except ImportError as error:
        raise ShardError(
            f"cannot fetch links of the web: {error}; pip install 'care-ssl[http]'"
        ) from None


class _Fetcher:
    """The links of a shard, of which the next ones are under way.

    Args:
        links: in the order in which they will be read.
    """

    def __init__(self, links: Sequence[str]) -> None:
        self._client = http_client()
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._coming = iter(links)
        self._futures = dict[str, list[Future[bytes]]]()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._silent = dict[str, int]()  # links in a row without an answer, by host
        for _ in range(AHEAD):
            self._start_next()

    def read(self, image: Candidate) -> bytes:
        """The bytes of an image, of a link or not.

        Raises:
            RejectError: It cannot be read.
            ShardError: The disk or a store fails.
        """
        if not is_link(image.path):
            return read_image(image)
        self._start_next()
        return self._futures[image.path].pop(0).result()

    def close(self) -> None:
        """Give up what is under way."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_next(self) -> None:
        link = next(self._coming, None)
        if link is not None:
            future = self._pool.submit(self._fetch, link)
            self._futures.setdefault(link, []).append(future)

    def _fetch(self, link: str) -> bytes:
        """The bytes behind a link.

        Raises:
            RejectError: Its host does not give them, or they are too many.
        """
        host = urlsplit(link).netloc.rpartition("@")[2]
        pauses = iter(objects.PAUSES)
        while not self._closed.is_set() and self._silent.get(host, 0) < PATIENCE:
            try:
                data = bytes(self._client.cat_file(_quoted(link)))
            except Exception as error:  # each kind of connection has its own
                pause = None if _is_final(error) else next(pauses, None)
                if pause is None:
                    self._count(host, is_silent=not _is_answer(error))
                    break
                self._closed.wait(pause)
                continue
            self._count(host, is_silent=False)
            if len(data) > MAX_BYTES:
                raise RejectError(Reject.TOO_LARGE)
            return data
        raise RejectError(Reject.NOT_FETCHED)

    def _count(self, host: str, *, is_silent: bool) -> None:
        """Remember whether a host answered, and tell when it is given up."""
        with self._lock:
            self._silent[host] = self._silent.get(host, 0) + 1 if is_silent else 0
            is_given_up = self._silent[host] == PATIENCE
        if is_given_up:
            warn(
                f"{host} does not answer: the links to it are left out now, and tried again by a "
                "next build"
            )


def _quoted(link: str) -> str:
    """A link as it is sent: as it is written, if it can be; a signature holds for no other one."""
    from yarl import URL

    if link.isascii() and not any(character in link for character in ' "<>\\^`{|}'):
        return link
    return str(URL(link))


def _is_answer(error: Exception) -> bool:
    """Whether a host did answer, though not with the image."""
    return isinstance(error, FileNotFoundError) or isinstance(getattr(error, "status", None), int)


def _is_final(error: Exception) -> bool:
    """Whether a host will say the same again."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError | ValueError):  # 404, or no address
        return True
    return isinstance(status, int) and 400 <= status < 500 and status not in _AGAIN
