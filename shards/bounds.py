"""Bounds of numbers, written into types.

A signature says so what it admits, and a command line checks it.

``PositiveInt`` is an ``int`` to every type checker. What builds options from a signature finds the
``Range`` in the annotation, shows it in the help and refuses what lies outside of it.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """The numbers that an annotation admits.

    Attributes:
        min: the smallest one, or None without a lower bound.
        max: the largest one, or None without an upper bound.
    """

    min: float | None = None
    max: float | None = None


class TypedAs(NamedTuple):
    """How a value is typed on a command line that is no plain number or word.

    Attributes:
        metavar: its form, for the help.
        parse: makes the value of the text; of what is no such text it raises a ``Failure``.
    """

    metavar: str
    parse: Callable[[Any], Any]


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
# in images; batch norm has no statistics of a single one
BatchSize = Annotated[int, Range(2)]
# in pixels; smaller ones are no images that a detector takes
PixelSide = Annotated[int, Range(16)]
Fraction = Annotated[float, Range(0, 1)]
NonNegativeFloat = Annotated[float, Range(0)]
PositiveFloat = Annotated[float, Range(1e-9)]
