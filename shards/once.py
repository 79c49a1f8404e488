"""Places that several steps in a row look at, each listed once.

A build asks for the parts of a source, for its annotations and for its images; a pipeline asks for
what is to be evaluated on, and then which sets are built of it already. A listing takes minutes of
a large folder and thousands of requests of a bucket. A training asks several times how the run that
it goes on with was asked for.
"""

import functools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from shards import storage

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")

# by function and arguments; None outside of a block
_memory: ContextVar[dict[Hashable, Any] | None] = ContextVar("memory", default=None)


@contextmanager
def listing_once() -> Iterator[None]:
    """Let what is listed in the block stay as it was at the first look, also in blocks within."""
    if _memory.get() is not None:
        yield
        return
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def forget_listings() -> None:
    """Free what the block has listed so far: of a million images that is a gigabyte."""
    memory = _memory.get()
    if memory is not None:
        memory.clear()


def listed_once(function: Callable[Parameters, Value]) -> Callable[Parameters, Value]:
    """A function whose values are kept in a ``listing_once`` block, by its arguments.

    Args:
        function: of paths and other values that can be keys; nobody changes what it returns.
    """

    @functools.wraps(function)
    def remembering(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Value:
        memory = _memory.get()
        if memory is None:
            return function(*args, **kwargs)
        named = sorted(kwargs.items())
        key = (function, *map(_plain, args), *((name, _plain(value)) for name, value in named))
        if key not in memory:
            memory[key] = function(*args, **kwargs)
        value: Value = memory[key]
        return value

    return remembering


def list_deep(folder: str | Path) -> Mapping[str, int]:
    """The files in a folder at any depth, as ``storage.listing`` has them.

    Args:
        folder: path or URL; in a block its files may be known from a listing of a folder above it.

    Returns:
        Sizes in bytes by name.
    """
    memory = _memory.get()
    if memory is None:
        return storage.listing(folder, deep=True)
    listings: dict[str, Mapping[str, int]] = memory.setdefault(list_deep, {})
    place = str(folder).rstrip("/")
    if place not in listings:
        above = next((root for root in listings if place.startswith(f"{root}/")), None)
        listings[place] = (
            storage.listing(folder, deep=True)
            if above is None
            else _below(listings[above], place.removeprefix(f"{above}/"))
        )
    return listings[place]


def _below(listing: Mapping[str, int], folder: str) -> Mapping[str, int]:
    """What of a listing is in one of its folders."""
    start = f"{folder}/"
    names = [name for name in listing if name.startswith(start)]
    return {name.removeprefix(start): listing[name] for name in names}


def _plain(argument: Any) -> Hashable:
    """An argument as a part of a key, a path as its text."""
    part: Hashable = argument
    if isinstance(argument, os.PathLike):
        part = os.fspath(argument)
    elif isinstance(argument, list):
        part = tuple(argument)
    return part
