"""Samples that Python code yields: what one is, and what its key, image and label may be."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
import numpy as np
from shards.errors import ShardError


class YieldedSample(NamedTuple):
    """One sample of an iterable.

    Attributes:
        key: its name in the source.
        image: as it came: a file's bytes, a path, an image or an array.
        class_name: its class, or None.
    """

    key: str
    image: Any
    class_name: str | None


def refuse_other(src: object, options: Mapping[str, object]) -> None:
    """Check that a source that is no path is an iterable of samples.

    Args:
        src: the source.
        options: what is of lists and tables only.

    Raises:
        ShardError: It is not, or an option is there.
    """
    wanted = "wanted a path, a URL or an iterable of (key, image, label) as the source"
    if isinstance(src, bytes | bytearray | Mapping):
        raise ShardError(f"{wanted}, got {type(src).__name__}")
    try:
        iter(src)  # type: ignore[call-overload]
    except TypeError:
        raise ShardError(f"{wanted}, got {type(src).__name__}") from None
    superfluous = [name for name, value in options.items() if value]
    if superfluous:
        raise ShardError(
            f"wanted {' and '.join(superfluous)} with a list or a table, got an iterable; leave it "
            "out, its samples say their images and classes"
        )


def read_samples(samples: Iterable[Any]) -> Iterator[YieldedSample]:
    """Check the form of every sample as it comes.

    Args:
        samples: yields (key, image, label). A key is a text or a number, unique. A label is the
            name of a class, its number, or None, -1 or NaN for none.

    Yields:
        The samples.

    Raises:
        ShardError: A sample is none, which is told by its number.
    """
    for number, sample in enumerate(samples):
        if not isinstance(sample, tuple | list) or len(sample) != 3:
            raise ShardError(
                f"wanted (key, image, label) as sample {number} of the source, got "
                f"{_form_of(sample)}; yield such triples, the label is None where there is none"
            )
        key, image, label = sample
        text = _key_text(key, number)
        yield YieldedSample(text, image, _class_name(label, text))


def _form_of(sample: object) -> str:
    """What a sample is instead of a triple, for a message."""
    if isinstance(sample, tuple | list):
        return f"({', '.join(type(part).__name__ for part in sample)})"
    return type(sample).__name__


def _key_text(key: object, number: int) -> str:
    """The text of a key, which is a relative path in the set.

    Args:
        key: as the sample has it.
        number: of the sample, for the message.

    Raises:
        ShardError: It is none, or would lead out of a folder that the set is unpacked in.
    """
    if isinstance(key, str):
        text = key
    else:
        try:
            text = str(operator.index(key))  # type: ignore[arg-type]
        except TypeError:
            raise ShardError(
                f"wanted a text or a number as the key of sample {number}, got "
                f"{type(key).__name__}; of a path, str(path.relative_to(folder)) is one"
            ) from None
    parts = text.split("/")
    if not text or ".." in parts or "" in parts:
        raise ShardError(
            f"wanted a name such as cat/1 as the key of sample {number}, got {text!r}; a key "
            "is a relative path without .., and not empty"
        )
    return text


def _class_name(label: Any, key: str) -> str | None:
    """The name of a class as a sample says it, or None.

    Args:
        label: the name, a number, or what stands for none; also as an array of one element.
        key: of the sample, for the message.

    Raises:
        ShardError: It is none of these.
    """
    if label is None or isinstance(label, str):
        return label or None
    problem = ShardError(
        f"wanted a class's name or number, or None, as the label of {key}, got {label!r}; where an "
        "image has several classes, choose one"
    )
    values = np.asarray(label)
    if values.size != 1:
        raise problem
    value = values.item()
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, int | float) or value != int(value):
        raise problem
    return None if value < 0 else str(int(value))
