"""From shards to a checkpoint: views and batches as pure functions of (seed, step), the loop, what a run saves."""

from care.train.batches import batches
from care.train.load import load_encoder
from care.train.machine import Machine
from care.train.pretrain import Pretrained, pretrain
from care.train.run import Run
from care.train.sgd import SGD
from care.train.views import VIEWS, View
from shards.errors import Stopped

__all__ = [
    "SGD",
    "VIEWS",
    "Machine",
    "Pretrained",
    "Run",
    "Stopped",
    "View",
    "batches",
    "load_encoder",
    "pretrain",
]
