"""The seats of one run, seen from where the command was given: opened, followed and closed."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from flows.attempts import Tell
from flows.cluster.room import Share
from flows.cluster.seat import Seat
from flows.cluster.session import reason_of
from flows.outcomes import Outcome
from flows.supervise import GRACE_SECONDS
from shards.errors import ShardError

# the methods of an actor that are called while another one waits
_CALLS_AT_A_TIME = 4
_LOST = Outcome("died", "a worker of Ray does not answer any more")


class Seats:
    """The seats that are open, until ``stop``.

    Args:
        stall: seconds without a line of a process after which it is taken for hung.
        mark: a file that only nodes with the folder of the run see; "" where that is a URL.

    Attributes:
        stopping: set when nothing is to be begun any more.
    """

    def __init__(self, stall: float, mark: str) -> None:
        self.stopping = threading.Event()
        self._stall = stall
        self._mark = mark
        self._open = set[Any]()

    def open(self, share: Share, strategy: Any = "DEFAULT") -> Any:
        """A seat, which waits for room on the cluster.

        Args:
            share: of a node, that it gets.
            strategy: Ray's scheduling strategy, which says where.
        """
        import ray

        actor = ray.remote(Seat).options(
            num_cpus=share.cores,
            num_gpus=share.gpus,
            max_concurrency=_CALLS_AT_A_TIME,
            scheduling_strategy=strategy,
        )
        seat = actor.remote(str(Path.cwd()), self._stall)
        self._open.add(seat)
        return seat

    def close(self, seat: Any) -> None:
        """Give back what a seat has; its process has ended, or is asked to stop by that."""
        import ray

        self._open.discard(seat)
        ray.kill(seat)

    def is_well(self, seat: Any) -> bool:
        """Whether a seat, whose process has ended, can do another stage."""
        import ray

        if self.stopping.is_set():
            return False
        try:
            return bool(ray.get(seat.is_well.remote(), timeout=5))
        except ray.exceptions.RayError:
            return False

    def ask(self, seat: Any, method: str, *arguments: Any) -> Any:
        """What a seat answers, once it has its place.

        Raises:
            RayError: It was lost, or closed by ``stop``.
        """
        import ray

        reference = getattr(seat, method).remote(*arguments)
        while not ray.wait([reference], timeout=1)[0]:
            if self.stopping.is_set():
                ray.kill(seat)
        return ray.get(reference)

    def attempt(self, seats: Sequence[Any], begin: Callable[[], None], tell: Tell) -> Outcome:
        """Have seats begin what they do together, and follow it to its end.

        Args:
            seats: which are open.
            begin: has all of them begin.
            tell: is given each line that their processes print.

        Raises:
            ShardError: A node does not see the folder of the run.
        """
        import ray

        try:
            self._check_folder(seats)
            begin()
            return worst_of(self._follow(seats, tell))
        except ray.exceptions.RayError as error:
            return _outcome_of(error)

    def stop(self) -> None:
        """Have the processes that are left save themselves, and close their seats."""
        self.stopping.set()
        deadline = time.monotonic() + GRACE_SECONDS
        for seat in list(self._open):
            seat.stop.remote()
        while self._open and time.monotonic() < deadline:
            time.sleep(0.02)
        for seat in list(self._open):
            self.close(seat)

    def _check_folder(self, seats: Sequence[Any]) -> None:
        """Refuse nodes that would train in a folder of their own."""
        for seat in seats:
            if self._mark and not self.ask(seat, "sees", self._mark):
                address = self.ask(seat, "whereabouts").address
                raise ShardError(
                    f"wanted a folder that all nodes of the Ray cluster share, got one that the"
                    f" node at {address} has not: {Path(self._mark).parents[1].resolve()}; give"
                    " --out on shared storage, or a URL such as s3://bucket/lab"
                )

    def _follow(self, seats: Sequence[Any], tell: Tell) -> list[Outcome]:
        """Pass on what is printed at seats until all processes are gone.

        When one of them ends otherwise than well, the others are asked to stop.

        Returns:
            How they ended, in the order of their ends.
        """
        import ray

        outcomes = list[Outcome]()
        awaited = {seat.words.remote(): seat for seat in seats}
        deadline = math.inf
        while awaited and time.monotonic() < deadline:
            for reference in ray.wait(list(awaited), timeout=1)[0]:
                seat = awaited.pop(reference)
                outcome = _pass_on(reference, tell)
                if outcome is None:
                    awaited[seat.words.remote()] = seat
                    continue
                outcomes.append(outcome)
                if outcome.state != "done" and deadline == math.inf:
                    deadline = time.monotonic() + GRACE_SECONDS + 10
                    for other in awaited.values():
                        other.stop.remote()
        return outcomes + [_LOST] * len(awaited)


def _pass_on(reference: Any, tell: Tell) -> Outcome | None:
    """Tell the words that a seat has for us; what it says of the end is returned."""
    import ray

    try:
        words = ray.get(reference)
    except ray.exceptions.RayError as error:
        return _outcome_of(error)
    for word in words:
        if isinstance(word, Outcome):
            return word
        tell(word)
    return None


def _outcome_of(error: Exception) -> Outcome:
    """What the loss of a seat makes of its stage."""
    return Outcome("died", f"a worker of Ray is gone ({reason_of(error)})")


def worst_of(outcomes: Sequence[Outcome]) -> Outcome:
    """How several processes that train together ended.

    A process that meets a peer's death fails by an error of its own, so a death counts for more;
    what is wrong with the call is told by some of them, and no other attempt would mend it.

    Args:
        outcomes: theirs, in the order of their ends.
    """
    for states in (("usage", "failed"), ("died", "hung"), ("store",), ("bug",), ("stopped",)):
        for outcome in outcomes:
            if outcome.state in states:
                return outcome
    return Outcome("done", "")
