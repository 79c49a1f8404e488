"""What an actor of Ray does on its node: one stage, or one process of a group that trains.

It computes nothing itself: ``flows.supervise`` forks a process there, follows it and lets it save,
as it does where the command was given. When the actor dies, what it started is asked to stop.
"""

import fcntl
import os
import queue
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from flows.outcomes import Outcome
from flows.supervise import Children

SECONDS_BETWEEN_WORDS = 5.0  # after which a seat without anything to tell says that it is there
_SIOCGIFADDR = 0x8915  # asks Linux for the address of an interface
_SOCKET_NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class Whereabouts(NamedTuple):
    """Where a seat is.

    Attributes:
        node: Ray's name of it.
        address: of the node, by which the others reach it.
        gpus: numbers of the seat's GPUs there.
        port: of that address, which nobody listened at just now.
        temporary: the folder for temporary files there.
    """

    node: str
    address: str
    gpus: tuple[str, ...]
    port: int
    temporary: str


class Seat:
    """The actor.

    Args:
        folder: in which the command was given; relative paths are below it.
        stall: seconds without a line of the process after which it is taken for hung.
    """

    def __init__(self, folder: str, stall: float) -> None:
        with suppress(OSError):  # a node that has not that folder can do what is named by URLs
            os.chdir(folder)
        self._children = Children(1, stall)
        self._words = queue.SimpleQueue[str | Outcome]()
        self._is_stopped = False

    def sees(self, path: str) -> bool:
        """Whether there is something at a path on this node, too."""
        return Path(path).exists()

    def whereabouts(self) -> Whereabouts:
        """Where this seat is."""
        import ray

        context = ray.get_runtime_context()
        address = ray.util.get_node_ip_address()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        with socket.create_server((address, 0)) as probe:
            port = int(probe.getsockname()[1])
        return Whereabouts(context.get_node_id(), address, gpus, port, tempfile.gettempdir())

    def begin(self, work: str, arguments: Any, slot: dict[str, str]) -> None:
        """Begin a work as ``Children.attempt`` does it; ``words`` tell of it."""

        def follow() -> None:
            self._words.put(self._children.attempt(work, arguments, slot, self._words.put))

        threading.Thread(target=follow, daemon=True).start()

    def begin_member(self, arguments: Any, slot: dict[str, str], address: str) -> None:
        """Begin one of several processes that train together.

        Args:
            arguments: of ``flows.works.run_work``.
            slot: variables for its environment.
            address: of this node, at whose interface it meets the others unless the environment
                names another one.
        """
        interface = interface_of(address)
        named = {name: os.environ.get(name, interface) for name in _SOCKET_NAMES}
        slot = slot | {name: interface for name, interface in named.items() if interface}
        self.begin("member", arguments, slot)

    def words(self) -> Sequence[str | Outcome]:
        """What the process has printed since the last call, at last how it ended.

        It waits for something to tell, at most ``SECONDS_BETWEEN_WORDS``.
        """
        words = list[str | Outcome]()
        with suppress(queue.Empty):
            words.append(self._words.get(timeout=SECONDS_BETWEEN_WORDS))
            while True:
                words.append(self._words.get_nowait())
        return words

    def is_well(self) -> bool:
        """Whether it can do another stage."""
        return not self._is_stopped

    def stop(self) -> None:
        """Have the process save itself, and end it; nothing else is done here."""
        self._is_stopped = True
        self._children.stop()


def interface_of(address: str) -> str:
    """The network interface that has an address; "" where this system does not tell.

    Gloo would take the one that the machine's own name leads to, which on many is the loopback.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # it has no address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""
