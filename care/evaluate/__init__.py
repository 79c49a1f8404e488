"""The one place where an encoder is judged; every function states its protocol."""

from care.evaluate.detection import detect
from care.evaluate.features import Accuracy, Evaluation, Features, extract, knn, weighted_knn
from care.evaluate.finetune import finetune, listed, stratified
from care.evaluate.linear import linear, linear_on_features
from care.evaluate.metrics import AveragePrecision, Detections, average_precision

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
