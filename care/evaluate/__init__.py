"""Judging an encoder: neighbours, linear, few labels, detection, pixels, and without labels.

What lives here: protocols, each in a file of its own that its docstring states, and what they share
(crops, features, scores, metrics). What does not: training without labels, which is ``care.train``,
and tables of results, which are ``care.show``. The invariant: nothing is ever chosen on val, and an
encoder that is judged is not changed by a bit. ``tests/care/evaluate`` holds it, in tests such as
``test_val_chooses_nothing`` and ``test_it_changes_no_argument_and_no_global_state``.
"""

from care.evaluate.attention import attention
from care.evaluate.average_precision import AveragePrecision, Detections
from care.evaluate.coco_metric import average_precision
from care.evaluate.detect import detect
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.evaluation import Accuracy, Evaluation
from care.evaluate.feature_files import write_features
from care.evaluate.features import Features, extract
from care.evaluate.few_labels import Labels, stratified
from care.evaluate.finetune import finetune
from care.evaluate.images import Crops
from care.evaluate.knn import knn, weighted_knn
from care.evaluate.label_free import (
    alignment,
    lidar,
    neighbour_agreement,
    rankme,
    uniformity,
)
from care.evaluate.label_lists import listed
from care.evaluate.linear import linear
from care.evaluate.linear_features import linear_on_features
from care.evaluate.multilabel import multilabel
from care.evaluate.predictions import Predictions
from care.evaluate.quality import quality, quality_probe
from care.evaluate.segment import segment
from care.evaluate.segmenter import SegmenterShape

__all__ = [
    "Accuracy",
    "AveragePrecision",
    "Crops",
    "Detections",
    "DetectorShape",
    "Evaluation",
    "Features",
    "Labels",
    "Predictions",
    "SegmenterShape",
    "alignment",
    "attention",
    "average_precision",
    "detect",
    "extract",
    "finetune",
    "knn",
    "lidar",
    "linear",
    "linear_on_features",
    "listed",
    "multilabel",
    "neighbour_agreement",
    "quality",
    "quality_probe",
    "rankme",
    "segment",
    "stratified",
    "uniformity",
    "weighted_knn",
    "write_features",
]
