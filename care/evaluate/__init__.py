"""The one place where an encoder is judged; every function states its protocol."""

from care.evaluate.coco import AveragePrecision, Detections, average_precision
from care.evaluate.detection import detect
from care.evaluate.features import Accuracy, Features, extract
from care.evaluate.finetune import Finetuned, finetune, listed, stratified
from care.evaluate.knn import knn
from care.evaluate.linear import Linear, linear

__all__ = [
    "Accuracy", "AveragePrecision", "Detections", "Features", "Finetuned", "Linear", "average_precision", "detect", "extract", "finetune",
    "knn", "linear", "listed", "stratified",
]  # fmt: skip
