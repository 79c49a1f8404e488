"""Two lists of the evaluations on annotated images are one."""

from flows.evaluations import JUDGED
from flows.verbs import ON_BOXES


def test_the_evaluations_on_annotated_images_are_those_of_the_table() -> None:
    assert {line.kind for line in JUDGED if line.annotated} == ON_BOXES
