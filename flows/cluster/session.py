"""The connection to a Ray cluster: the one that the environment names, or one on this machine."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from flows.cluster.room import Node
from shards.cores import available_cores
from shards.errors import ShardError


@contextmanager
def session() -> Iterator[None]:
    """Be connected to Ray in the block: to ``RAY_ADDRESS``, or to one of our own that ends with it.

    Where this process is connected already, it stays so.

    Raises:
        ShardError: No cluster answers at the address.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # before the import: loopback alone, and nobody is told of us
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _reach(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                num_cpus=available_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ShardError(
            f"wanted a Ray cluster at {address or 'this machine'} (RAY_ADDRESS), got: {reason};"
            " start one with: ray start --head, or unset RAY_ADDRESS for one on this machine alone"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray's would end this process before its stages have saved
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise an ``OSError`` where nobody listens at an address, for whom Ray would wait minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def living_nodes() -> list[Node]:
    """The nodes of the cluster that are there now, with all that they have, free or not."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [_node_of(node["Resources"]) for node in nodes]


def _node_of(resources: dict[str, float]) -> Node:
    """A node by what Ray says that it has."""
    return Node(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def reason_of(error: Exception) -> str:
    """The line of an error of Ray's that says why: the last one, where there is a cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
