"""What a cluster has room for, how a group meets, and how it ended: without Ray."""

import itertools
import socket
import pytest
from flows.cluster.group import member_slots, order_of
from flows.cluster.places import Places
from flows.cluster.room import Node, Share, largest_share, most_processes
from flows.cluster.seat import Whereabouts, interface_of
from flows.cluster.seats import worst_of
from flows.outcomes import Outcome


def fits(nodes: list[Node], share: Share, processes: int) -> bool:
    """Whether so many shares can be put onto the nodes, one after the other."""
    free = [list(node) for node in nodes]
    for _ in range(processes):
        for node in free:
            if node[0] >= share.cores and node[1] >= share.gpus:
                node[0] -= share.cores
                node[1] -= share.gpus
                break
        else:
            return False
    return True


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_a_share_is_the_largest_of_which_there_are_so_many(processes: int) -> None:
    sizes = [Node(0, 0), Node(1, 0), Node(3, 0), Node(8, 2), Node(8, 1), Node(64, 8)]
    for nodes in itertools.combinations_with_replacement(sizes, 2):
        gpus = min(sum(node.gpus for node in nodes), 1)
        shares = [Share(cores, gpus) for cores in range(1, 65)]
        fitting = [share for share in shares if fits(list(nodes), share, processes)]
        assert largest_share(nodes, processes) == max(fitting, default=None)


def test_without_a_node_as_many_go_on_as_fit_and_divide_the_batch() -> None:
    nodes = [Node(2, 0), Node(1, 0)]
    assert most_processes(nodes, 4, 12) == 3
    assert most_processes(nodes, 4, 8) == 2
    assert most_processes(nodes, 2, 12) == 2
    assert most_processes([], 2, 12) == 0


def place(node: str, *gpus: str) -> Whereabouts:
    return Whereabouts(node, f"10.0.0.{node}", gpus, 29400, "/tmp")


def test_ranks_go_node_by_node_and_each_knows_its_neighbours() -> None:
    where = [place("1", "3"), place("2", "0"), place("1", "5")]
    order = order_of(where)
    assert order == [0, 2, 1]
    slots = member_slots([where[number] for number in order], 4)
    assert [slot["RANK"] for slot in slots] == ["0", "1", "2"]
    assert [slot["LOCAL_RANK"] for slot in slots] == ["0", "1", "0"]
    assert [slot["LOCAL_WORLD_SIZE"] for slot in slots] == ["2", "2", "1"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["3,5", "3,5", "0"]
    assert [slot["CARE_CORES"] for slot in slots] == ["8", "8", "4"]
    assert {slot["WORLD_SIZE"] for slot in slots} == {"3"}
    assert {slot["MASTER_ADDR"] for slot in slots} == {"10.0.0.1"}
    (name,) = {slot["TORCHELASTIC_RUN_ID"] for slot in slots}
    # a path would have them meet in a file of one machine
    assert not name.startswith("/")


def test_on_one_machine_they_meet_in_a_file() -> None:
    places = [place("1"), place("1")]
    slots = member_slots(places, 1)
    (name,) = {slot["TORCHELASTIC_RUN_ID"] for slot in slots}
    assert name.startswith(f"{places[0].temporary}/care-group-")
    assert "CUDA_VISIBLE_DEVICES" not in slots[0]


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (["done", "done"], "done"),
        (["bug", "died"], "died"),  # what a peer's death makes of the others
        (["bug", "failed"], "failed"),
        (["stopped", "usage"], "usage"),
        (["done", "stopped"], "stopped"),
        (["stopped", "bug"], "bug"),
        (["bug", "store"], "store"),
    ],
)
def test_a_group_has_ended_as_what_explains_the_ends_of_all(states, worst) -> None:
    assert worst_of([Outcome(state, "") for state in states]).state == worst


def test_the_interface_of_an_address_is_the_one_that_has_it() -> None:
    loopback = interface_of("127.0.0.1")
    assert loopback in {name for _, name in socket.if_nameindex() if name.startswith("lo")}
    assert interface_of("203.0.113.7") == ""


class Seats:
    """Seats that are opened and closed, of which some do no more."""

    def __init__(self, ill: tuple[int, ...] = ()) -> None:
        self.opened = 0
        self.closed = list[int]()
        self._ill = ill

    def open(self, _: Share) -> int:
        self.opened += 1
        return self.opened

    def close(self, seat: int) -> None:
        self.closed.append(seat)

    def is_well(self, seat: int) -> bool:
        return seat not in self._ill


def test_a_seat_that_nobody_waits_for_is_closed() -> None:
    seats = Seats()
    places = Places(seats, Share(1, 0), 1)
    for _ in range(2):
        with places.taken():
            pass
    assert seats.closed == [1, 2]


@pytest.mark.parametrize(("ill", "taken"), [((), [1, 1, 1]), ((1,), [1, 2, 2])])
def test_who_waits_for_a_place_takes_over_its_seat_if_that_is_well(ill, taken) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from time import sleep

    seats = Seats(ill)
    places = Places(seats, Share(1, 0), 1)

    def stage() -> int:
        with places.taken() as seat:
            while places._waiting < 3 - len(done) - 1:
                sleep(0.01)
            done.append(seat)
        return seat

    done = list[int]()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(stage)
    assert done == taken
    assert sorted(seats.closed) == sorted(set(taken))
