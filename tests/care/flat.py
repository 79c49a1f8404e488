"""Frozen values made of plain settings, for tests that change one setting at a time."""

from dataclasses import fields
from care.train import SGD, Machine


def take(value_class, settings):
    """The value of those settings that are its fields; they are taken out of the dictionary."""
    names = [field.name for field in fields(value_class) if field.name in settings]
    return value_class(**{name: settings.pop(name) for name in names})


def gathered(flat):
    """Keywords for ``pretrain``, those that are fields of its values put into the values."""
    keywords = dict(flat)
    return {"machine": take(Machine, keywords), "optimizer": take(SGD, keywords)} | keywords
