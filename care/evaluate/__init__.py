"""The one place where an encoder is judged; every function states its protocol."""

from care.evaluate.features import Accuracy, Features, extract
from care.evaluate.knn import knn
from care.evaluate.linear import Linear, linear

__all__ = ["Accuracy", "Features", "Linear", "extract", "knn", "linear"]
