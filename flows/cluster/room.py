"""What a cluster has room for: the share that each of several processes gets of its nodes."""

from collections.abc import Sequence
from typing import NamedTuple


class Node(NamedTuple):
    """A machine of a cluster.

    Attributes:
        cores: that may be used there.
        gpus: the same.
    """

    cores: int
    gpus: int


class Share(NamedTuple):
    """What one process gets of a node.

    Attributes:
        cores: CPU cores, at least 1.
        gpus: 1, or 0 on a cluster without GPUs.
    """

    cores: int
    gpus: int


def total_gpus(nodes: Sequence[Node]) -> int:
    """GPUs of all nodes."""
    return sum(node.gpus for node in nodes)


def largest_share(nodes: Sequence[Node], processes: int) -> Share | None:
    """The largest share of which there are so many on the nodes.

    Args:
        nodes: of the cluster.
        processes: how many, each on one node.

    Returns:
        Equal cores for each, and a GPU where the cluster has any; None where not so many fit.
    """
    gpus = min(total_gpus(nodes), 1)
    most = max((node.cores for node in nodes), default=0)
    for cores in range(most, 0, -1):
        if _places(nodes, Share(cores, gpus)) >= processes:
            return Share(cores, gpus)
    return None


def _places(nodes: Sequence[Node], share: Share) -> int:
    """How many processes with such a share fit on the nodes."""
    places = 0
    for node in nodes:
        by_cores = node.cores // share.cores
        places += min(by_cores, node.gpus) if share.gpus else by_cores
    return places


def most_processes(nodes: Sequence[Node], wanted: int, images: int) -> int:
    """The most processes that fit and that a batch can be cut into.

    Args:
        nodes: of the cluster.
        wanted: processes, of which there are not more.
        images: of the part of a batch that all of them compute at a time.

    Returns:
        Their number, 0 where not even one fits.
    """
    for processes in range(wanted, 0, -1):
        if images % processes == 0 and largest_share(nodes, processes):
            return processes
    return 0
