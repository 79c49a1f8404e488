"""Training: from shards to a checkpoint.

Here live the views and batches that a training takes, the loop, and all that a run needs to
survive: precision, many processes, checkpoints, logs. What is learned by is ``care``'s, what a
network is worth ``care.evaluate``'s; commands and schedules are above. All that is not saved is a
pure function of (seed, step): a run that was killed ends with the same bits
(``tests/care/train/test_interruptions.py``), and every step is that of the
README's loop (``test_every_step_is_that_of_the_plain_loop``).
"""

from care.train.batches import batches
from care.train.load import load_encoder
from care.train.machine import Machine
from care.train.optimizers import LARC, LARS, SGD, AdamW, Optimizer, Schedule
from care.train.pretrain import Pretrained, pretrain
from care.train.probes import TimedProbe
from care.train.run import Run
from care.train.views import VIEWS, View
from shards.errors import Stopped

__all__ = [
    "LARC",
    "LARS",
    "SGD",
    "VIEWS",
    "AdamW",
    "Machine",
    "Optimizer",
    "Pretrained",
    "Run",
    "Schedule",
    "Stopped",
    "TimedProbe",
    "View",
    "batches",
    "load_encoder",
    "pretrain",
]
