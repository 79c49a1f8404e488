"""What the signatures of evaluations say of them."""

import pytest
import shards
from flows.evaluations import JUDGED
from flows.verbs import has_encoders_size, learns, loader_of, places_of
from shards import boxes, multilabels, segmentation

LOADERS = {
    "attention": boxes.load,
    "knn": shards.open,
    "linear": shards.open,
    "finetune": shards.open,
    "detect": boxes.load,
    "multilabel": multilabels.load,
    "quality": shards.open,
    "segment": segmentation.load,
}
PLACES = {
    "attention": {"image_root"},
    "detect": {"image_root"},
    "multilabel": {"image_root", "columns"},
    "segment": {"image_root"},
}


@pytest.mark.parametrize("verb", [line.kind for line in JUDGED])
def test_the_type_of_its_data_says_how_an_evaluation_opens_them(verb: str) -> None:
    assert loader_of(verb) is LOADERS[verb]
    assert places_of(verb) == PLACES.get(verb, set())


def test_only_a_detectors_and_a_segmenters_size_is_not_that_of_the_encoder() -> None:
    others = {line.kind for line in JUDGED if not has_encoders_size(line.kind)}
    assert others == {"detect", "segment"}


def test_two_evaluations_learn_nothing() -> None:
    assert {line.kind for line in JUDGED if not learns(line.kind)} == {"attention", "quality"}
