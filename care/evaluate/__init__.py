"""The one place where an encoder is judged; every function states its protocol."""

from care.evaluate.average_precision import AveragePrecision, Detections
from care.evaluate.coco_metric import average_precision
from care.evaluate.detect import detect
from care.evaluate.evaluation import Accuracy, Evaluation
from care.evaluate.features import Features, extract
from care.evaluate.few_labels import listed, stratified
from care.evaluate.finetune import finetune
from care.evaluate.knn import knn, weighted_knn
from care.evaluate.linear import linear
from care.evaluate.linear_features import linear_on_features

__all__ = [
    "Accuracy",
    "AveragePrecision",
    "Detections",
    "Evaluation",
    "Features",
    "average_precision",
    "detect",
    "extract",
    "finetune",
    "knn",
    "linear",
    "linear_on_features",
    "listed",
    "stratified",
    "weighted_knn",
]
