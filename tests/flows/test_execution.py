"""How stages are run: what the work of a training is told beside what decides its result."""

from typing import get_args
from care.train import recompute
from flows import execution
from flows.execution import Execution


def test_the_choices_of_what_is_computed_again_are_the_trainings() -> None:
    assert get_args(execution.Recompute) == get_args(recompute.Recompute)


def test_trainings_alone_compute_activations_again() -> None:
    lean = Execution(recompute="some", nproc=2, workers=3)
    assert lean.inputs_for("pretrain") == {"workers": 3, "nproc": 2, "recompute": "some"}
    assert "recompute" not in lean.inputs_for("judge")
