"""What an evaluation is done on, as the signature of its function in ``care.evaluate`` says.

A room of its own, which imports no evaluation by a statement: what imports one is done again at
each edit of it, and so would be what imports the table of all.
"""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_type_hints
from flows.flatten import flat_parameters


def evaluation_of(verb: str) -> Callable[..., Any]:
    """The function of an evaluation.

    Args:
        verb: its name in ``care.evaluate``.
    """
    function: Callable[..., Any] = getattr(import_module("care.evaluate"), verb)
    return function


def loader_of(verb: str) -> Callable[..., Any]:
    """What opens the data of an evaluation.

    It is ``load``, or else ``open``, in the module of their class.

    Args:
        verb: the evaluation.
    """
    data = get_type_hints(evaluation_of(verb))["val"]
    module = import_module(data.__module__)
    loader: Callable[..., Any] = getattr(module, "load", None) or module.open
    return loader


def learns(verb: str) -> bool:
    """Whether an evaluation learns from data, or only scores: then it has no ``train``.

    Args:
        verb: the evaluation.
    """
    return "train" in inspect.signature(evaluation_of(verb)).parameters


def places_of(verb: str) -> set[str]:
    """The names of further inputs by which the data of an evaluation are found.

    Args:
        verb: the evaluation.

    Returns:
        Such as ``image_root``, the folder of the images of a list.
    """
    parameters = inspect.signature(loader_of(verb)).parameters.keys()
    return {name for name in ("image_root", "columns") if name in parameters}


def load_data(verb: str, place: str, *, classes: Any = None, **places: Any) -> Any:
    """Open what an evaluation learns from or is scored on.

    Args:
        verb: the evaluation.
        place: path or URL of the data.
        classes: their names in the data to learn from, where lists have other ones, too.
        **places: inputs of which those of ``places_of`` count; None are not given.
    """
    loader = loader_of(verb)
    keywords = {name: places.get(name) for name in places_of(verb)}
    if "classes" in inspect.signature(loader).parameters:
        keywords["classes"] = classes
    return loader(place, **{name: value for name, value in keywords.items() if value is not None})


def has_encoders_size(verb: str) -> bool:
    """Whether an evaluation's ``size`` is by default that of the encoder's training.

    Args:
        verb: the evaluation.
    """
    size = flat_parameters(evaluation_of(verb)).get("size")
    return size is not None and size.default is None
