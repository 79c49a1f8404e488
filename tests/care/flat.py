"""Plain settings of ``pretrain``, for tests that change one of them."""

from dataclasses import fields
from care.train import SGD, Machine

VALUES = {"sgd": SGD, "machine": Machine}


def gathered(flat):
    """Keywords for ``pretrain``, those that are fields of its values put into the values."""
    keywords = dict(flat)
    for name, value_class in VALUES.items():
        names = [field.name for field in fields(value_class) if field.name in keywords]
        keywords[name] = value_class(**{field: keywords.pop(field) for field in names})
    return keywords
