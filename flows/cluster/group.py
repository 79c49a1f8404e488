"""A pre-training by several processes on the nodes of a cluster, each on a seat of its own.

Ray only places them: they meet by torch's own rendezvous, as those of ``torchrun`` do, and what
they save is theirs. Ray Train would bring a second kind of checkpoint, and pandas and pyarrow.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from flows import environment
from flows.attempts import Tell
from flows.cluster.room import Share, largest_share, most_processes, total_gpus
from flows.cluster.seat import Whereabouts
from flows.cluster.seats import Seats
from flows.cluster.session import living_nodes
from flows.outcomes import STOPPED_EARLY, Outcome
from flows.result import Result

# that a group waits for room for all of its processes, such as for a node that was lost, before it
# goes on with as many as there is room for
PATIENCE_SECONDS = 60.0
_SECONDS_BEFORE_WORDS = 5.0  # of one that waits for room


@dataclass(frozen=True)
class Group:
    """Processes that train as one.

    Attributes:
        seats: of the run.
        processes: that are wanted.
        images: of the part of a batch that all of them compute at a time.
    """

    seats: Seats
    processes: int
    images: int

    def attempt(self, out: str, inputs: Result, tell: Tell) -> Outcome:
        """Train on as many nodes as it takes, from the newest checkpoint on.

        Args:
            out: run directory, path or URL.
            inputs: of the work.
            tell: is given each line that the processes print.
        """
        with self._reserved(tell) as places:
            if places is None:
                return Outcome("stopped", STOPPED_EARLY)
            seats = [self.seats.open(share, place) for share, place in places]
            begin = partial(self._begin, seats, places, out, inputs)
            try:
                return _with_another_port(self.seats.attempt(seats, begin, tell))
            finally:
                for seat in seats:
                    self.seats.close(seat)

    def _begin(
        self, seats: Sequence[Any], places: Sequence[tuple[Share, Any]], out: str, inputs: Result
    ) -> None:
        """Have all processes begin, once each has its place."""
        where = [self.seats.ask(seat, "whereabouts") for seat in seats]
        order = order_of(where)
        slots = member_slots([where[number] for number in order], places[0][0].cores)
        arguments = ["pretrain", out, inputs | {"nproc": len(seats)}]
        for number, slot in zip(order, slots, strict=True):
            address = where[number].address
            self.seats.ask(seats[number], "begin_member", arguments, slot, address)

    @contextmanager
    def _reserved(self, tell: Tell) -> Iterator[list[tuple[Share, Any]] | None]:
        """Room for all processes at once, or after a while for fewer.

        Yields:
            For each process its share and its place, as Ray is told it; None when all is stopped.
        """
        from ray.util import remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Placed

        share, placement = self._place(self.processes)
        try:
            while not self._wait(placement, tell):
                if self.seats.stopping.is_set():
                    yield None
                    return
                # asked for anew: nodes that were there may be gone, and others have come
                remove_placement_group(placement)
                share, placement = self._place(self._processes_with_room(tell))
            count = placement.bundle_count
            yield [(share, Placed(placement, number)) for number in range(count)]
        finally:
            remove_placement_group(placement)

    def _processes_with_room(self, tell: Tell) -> int:
        """As many processes as the nodes that are there now have room for, free or not."""
        processes = most_processes(living_nodes(), self.processes, self.images)
        if 0 < processes < self.processes:
            tell(f"the cluster has room for {processes} of {self.processes} processes; these go on")
        return processes or self.processes

    def _place(self, processes: int) -> tuple[Share, Any]:
        """Ask for places, on as few nodes as they fit on."""
        from ray.util import placement_group

        nodes = living_nodes()
        share = largest_share(nodes, processes) or Share(1, min(total_gpus(nodes), 1))
        resources = {"CPU": share.cores, "GPU": share.gpus}
        bundle = {name: amount for name, amount in resources.items() if amount}
        return share, placement_group([bundle] * processes, strategy="PACK")

    def _wait(self, placement: Any, tell: Tell) -> bool:
        """Wait for places, and say so.

        Args:
            placement: that was asked for.
            tell: is given the line.

        Returns:
            Whether they are there; not when all is stopped or ``PATIENCE_SECONDS`` have passed.
        """
        began = time.monotonic()
        is_told = False
        while not self.seats.stopping.is_set():
            if placement.wait(1):
                return True
            seconds = time.monotonic() - began
            if seconds > PATIENCE_SECONDS:
                return False
            if seconds > _SECONDS_BEFORE_WORDS and not is_told:
                is_told = True
                tell(f"waiting for room for {placement.bundle_count} processes on the cluster")
        return False


def _with_another_port(outcome: Outcome) -> Outcome:
    """What another attempt mends: that somebody else took the port before the processes met."""
    if outcome.state == "bug" and "address already in use" in outcome.message.lower():
        return Outcome("died", "the port at which the processes meet was taken by another one")
    return outcome


def order_of(where: Sequence[Whereabouts]) -> list[int]:
    """The seats in the order of their ranks: node by node, as torchrun has them.

    Args:
        where: they are.
    """
    nodes = list(dict.fromkeys(place.node for place in where))
    return sorted(range(len(where)), key=lambda number: nodes.index(where[number].node))


def member_slots(where: Sequence[Whereabouts], cores: int) -> list[dict[str, str]]:
    """The variables by which processes meet and divide their machines, as torchrun sets them.

    Those on one machine meet in a file there, and listen to it alone; those on several at a port of
    the first one.

    Args:
        where: they are, by rank, node by node.
        cores: of each.
    """
    token = uuid.uuid4().hex
    first = where[0]
    is_one_node = len({place.node for place in where}) == 1
    meeting = f"{first.temporary}/care-group-{token}-" if is_one_node else f"ray-{token}"
    slots = list[dict[str, str]]()
    for rank, place in enumerate(where):
        neighbours = [number for number, other in enumerate(where) if other.node == place.node]
        slot = {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(where)),
            "LOCAL_RANK": str(neighbours.index(rank)),
            "LOCAL_WORLD_SIZE": str(len(neighbours)),
            "MASTER_ADDR": first.address,
            "MASTER_PORT": str(first.port),
            "TORCHELASTIC_RUN_ID": meeting,
            "TORCHELASTIC_RESTART_COUNT": "0",
            environment.CORES: str(cores * len(neighbours)),
        }
        gpus = [gpu for number in neighbours for gpu in where[number].gpus]
        if gpus:
            # all of them for each: processes on one machine reach each other's
            slot["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        slots.append(slot)
    return slots
