"""The stages of one run on a Ray cluster, in the place of ``flows.supervise.Children``.

What computes with torch goes to the cluster: an evaluation is a seat with a GPU, where there are
any, and a pre-training by several processes a group of seats. What lists files and writes indexes
and pages stays where the command was given; the pieces of builds and of features go there, too.
"""

import platform
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any
from flows import records
from flows.attempts import Tell, try_until_done
from flows.cluster.group import Group
from flows.cluster.mapping import map_pieces
from flows.cluster.places import Places
from flows.cluster.room import Share, largest_share, total_gpus
from flows.cluster.seats import Seats
from flows.cluster.session import living_nodes
from flows.outcomes import Outcome
from flows.records import KeyedStage
from flows.supervise import MOST_JOBS, Children
from shards import storage
from shards.progress import console

# works of the process that the command is given to, which the cluster need not wait for
WORKS_HERE = {"build", "report"}
# what a group has trained is only loaded by who has this, see ``flows.works.training``
_LOADED = {"TORCHELASTIC_RUN_ID": "loaded"}


class RayStages:
    """The processes of one run on a cluster, until ``stop``."""

    def __init__(self, out: str, jobs: int = 0, stall: float = 3600) -> None:
        """Look at what the cluster has.

        Args:
            out: folder of the pipeline, path or URL.
            jobs: stages at a time; 0: one a GPU, or else one a core, at most ``MOST_JOBS`` a node.
            stall: seconds without a line of a process after which it is taken for hung.
        """
        self._here = Children(jobs, stall)
        self._seats = Seats(stall, _marked(out))
        nodes = living_nodes()
        cores = sum(node.cores for node in nodes)
        self._gpus = total_gpus(nodes)
        places = sum(min(node.cores, MOST_JOBS) for node in nodes)
        self._jobs_at_a_time = max(jobs, 0) or self._gpus or places or 1
        share = largest_share(nodes, self._jobs_at_a_time) or Share(1, min(self._gpus, 1))
        whole_node = largest_share(nodes, 1) or share
        self._places = Places(self._seats, share, self._jobs_at_a_time)
        self._whole_nodes = Places(self._seats, whole_node, len(nodes))
        console.print(f"Ray: {len(nodes)} nodes, {cores} cores, {self._gpus} GPUs", soft_wrap=True)

    def stop(self) -> None:
        """Have the stages that are left save themselves, and end them."""
        self._seats.stop()
        self._here.stop()

    def run(self, work: str, arguments: Any, tell: Tell, *, alone: bool = False) -> None:
        """Do a stage on the cluster, and return when it is done.

        Args:
            work: "stage", or "piece" of one, which is done here.
            arguments: JSON: the fields of the stage, or the arguments of the piece.
            tell: is given each line that its processes print.
            alone: with all cores of a node, instead of a share of them.

        Raises:
            Stopped: ``stop`` was called.
            Misuse: Its settings are out of range, or do not go together.
            Failure: It failed, or did not end well in any attempt.
            RuntimeError: A bug ended it; the traceback is its message.
        """
        if work != "stage" or KeyedStage(*arguments).work in WORKS_HERE:
            self._here.run(work, arguments, tell, alone=alone)
            return
        stage = KeyedStage(*arguments)
        processes = self._processes_of(stage)
        if processes > 1:
            self._train_together(stage, processes, tell)
        slot = _LOADED if processes > 1 else {}
        # alone, a stage has a node, but what others have trained needs no more than a share
        places = self._whole_nodes if alone and processes == 1 else self._places
        attempt = partial(self._attempt, places, arguments, slot, tell)
        try_until_done(attempt, self._seats.stopping, tell)

    def map_pieces(self, stage: KeyedStage, missing: Sequence[Any]) -> None:
        """Do pieces of a stage side by side on the cluster.

        Args:
            stage: of which they are.
            missing: of its pieces, as ``flows.pieces.missing_pieces`` gives them.

        Raises:
            Stopped: ``stop`` was called.
            ShardError: A piece failed.
        """
        inputs = stage.arguments()
        map_pieces(stage.work, stage.url, inputs, missing, self._seats.stopping)

    def fill_the_cpu(self, stages: int) -> bool:
        """Whether so many stages at a time use all cores of a cluster without a GPU.

        Args:
            stages: how many.
        """
        return self._gpus == 0 and self._jobs_at_a_time == stages

    def at_a_time(self) -> int:
        """How many stages run at a time."""
        return self._jobs_at_a_time

    def _processes_of(self, stage: KeyedStage) -> int:
        """How many processes a stage is done by, on all nodes together."""
        if stage.work != "pretrain":
            return 1
        return stage.inputs.get("nproc", 1) or self._gpus or 1

    def _train_together(self, stage: KeyedStage, processes: int, tell: Tell) -> None:
        """Train by several processes, unless that is done; who finishes the stage only loads it."""
        inputs = stage.arguments()
        images = inputs["batch_size"] // inputs.get("accumulate", 1)
        group = Group(self._seats, processes, images)
        with records.locked(stage):
            if records.finished_result(stage) is not None:
                return
            attempt = partial(group.attempt, stage.url, inputs, tell)
            try_until_done(attempt, self._seats.stopping, tell)

    def _attempt(self, places: Places, arguments: Any, slot: dict[str, str], tell: Tell) -> Outcome:
        """Have a seat do a stage, and follow it to its end."""
        with places.taken() as seat:

            def begin() -> None:
                self._seats.ask(seat, "begin", "stage", arguments, slot)

            return self._seats.attempt([seat], begin, tell)


def _marked(out: str) -> str:
    """A file of this machine's in a folder, which only nodes that share it see; none at a URL."""
    if storage.is_remote(out):
        return ""
    machine = storage.digest([platform.node(), uuid.getnode()])
    mark = f"{out}/stages/.seen-from-{machine[:8]}"
    storage.write_bytes(mark, b"")
    return mark
