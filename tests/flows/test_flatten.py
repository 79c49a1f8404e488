import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import Annotated
import pytest
from flows.flatten import flat_help, flat_parameters, flattened, gathered, parse_docstring

Rate = Annotated[float, "a bound"]


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Attributes:
        lr: rate for
            256 images.
        steps: the ``milestones``.
        decay: of weights.
    """

    lr: Rate
    steps: tuple[int, ...] | None = None
    decay: float = 0.1


@dataclass(frozen=True)
class Machine:
    """What decides no result.

    Attributes:
        workers: processes.
        tags: free words.
    """

    workers: int | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Mutable:
    """No value."""

    x: int = 0


def train(
    data: str,
    *,
    size: int = 224,
    optimizer: Optimizer = Optimizer(lr=0.5),
    machine: Machine | None = None,
    mutable: Mutable | None = None,
) -> tuple[object, ...]:
    """Train a network.

    A second paragraph.

    Args:
        data: to train on.
        size: of images, pixels.
        optimizer: of the weights.
        machine: on which.
        mutable: no value.

    Raises:
        ValueError: never.
    """
    return data, size, optimizer, machine, mutable


def required(*, optimizer: Optimizer) -> Optimizer:
    """Give the value."""
    return optimizer


def test_the_fields_of_frozen_values_take_the_place_of_the_values() -> None:
    parameters = flat_parameters(train)
    assert [*parameters] == ["size", "lr", "steps", "decay", "workers", "tags", "mutable"]
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters.values())
    assert parameters["lr"].annotation == Rate
    assert parameters["steps"].annotation == tuple[int, ...] | None
    assert parameters["mutable"].annotation == Mutable | None


def test_a_field_has_the_default_of_the_parameter_or_else_of_its_class() -> None:
    parameters = flat_parameters(train)
    defaults = {name: one.default for name, one in parameters.items()}
    assert defaults["lr"] == 0.5
    assert defaults["decay"] == 0.1
    assert defaults["workers"] is None
    assert defaults["tags"] == []
    assert flat_parameters(required)["lr"].default is inspect.Parameter.empty
    assert flat_parameters(required)["decay"].default == 0.1


def test_a_function_without_values_has_its_own_parameters() -> None:
    def plain(first: int, *, second: "int" = 2) -> None: ...

    (second,) = flat_parameters(plain).values()
    assert (second.name, second.annotation, second.default) == ("second", int, 2)
    assert gathered(plain, {"first": 1, "second": 3}) == {"first": 1, "second": 3}


def test_two_parameters_of_one_name_are_the_authors_mistake() -> None:
    def twice(*, lr: float, optimizer: Optimizer) -> None: ...

    with pytest.raises(TypeError, match="twice has two parameters lr"):
        flat_parameters(twice)


def test_the_help_of_a_field_is_that_of_its_class() -> None:
    assert flat_help(train) == {
        "data": "To train on.",
        "size": "Of images, pixels.",
        "lr": "Rate for 256 images.",
        "steps": "The milestones.",
        "decay": "Of weights.",
        "workers": "Processes.",
        "tags": "Free words.",
        "mutable": "No value.",
    }


def test_what_is_not_given_has_its_default() -> None:
    assert gathered(train, {"size": 32}) == {"size": 32, "optimizer": Optimizer(lr=0.5)}
    assert gathered(train, {"decay": 0}) == {"optimizer": Optimizer(lr=0.5, decay=0)}
    assert gathered(required, {"lr": 2}) == {"optimizer": Optimizer(lr=2)}


def test_a_value_that_may_be_none_is_none_without_a_field_of_its_own() -> None:
    assert "machine" not in gathered(train, {"workers": None, "tags": []})
    assert gathered(train, {"workers": 0})["machine"] == Machine(workers=0)


def test_a_value_given_whole_is_left_as_it_is() -> None:
    value = Optimizer(lr=3)
    assert gathered(train, {"optimizer": value})["optimizer"] is value


def test_a_field_may_have_the_name_of_its_parameter() -> None:
    @dataclass(frozen=True)
    class Images:
        """Where they are.

        Attributes:
            images: a folder.
        """

        images: str | None = None

    def run(*, images: Images) -> Images:
        """Run.

        Args:
            images: to train on.
        """
        return images

    assert flat_help(run) == {"images": "A folder."}
    assert flattened(run)(images="photos") == Images("photos")
    assert flattened(run)() == Images()
    assert flattened(run)(images=Images("x")) == Images("x")


def test_a_field_may_have_the_name_of_another_parameter() -> None:
    @dataclass(frozen=True)
    class Sets:
        """What there is.

        Attributes:
            lr: a folder of that name.
        """

        lr: str = "x"

    def run(*, lr: Machine, sets: Sets) -> tuple[Machine, Sets]:
        """Run.

        Args:
            lr: a machine.
            sets: some.
        """
        return lr, sets

    assert flat_help(run)["lr"] == "A folder of that name."
    assert flattened(run)(lr="y", workers=3) == (Machine(workers=3), Sets("y"))


def test_lists_of_json_become_the_tuples_of_a_field() -> None:
    optimizer = gathered(train, {"steps": [1, 2]})["optimizer"]
    assert optimizer.steps == (1, 2)
    assert hash(optimizer) == hash(Optimizer(lr=0.5, steps=(1, 2)))
    assert gathered(train, {"tags": ["a"]})["machine"].tags == ["a"]


def test_taken_apart_and_put_together_is_the_same() -> None:
    value = Optimizer(lr=7, steps=(3,), decay=0.3)
    assert gathered(required, dataclasses.asdict(value)) == {"optimizer": value}


def test_a_flattened_function_takes_and_documents_flat_parameters() -> None:
    flat = flattened(train)
    assert flat("x", lr=2.0, workers=3) == ("x", 224, Optimizer(lr=2), Machine(workers=3), None)
    assert [*inspect.signature(flat).parameters] == ["data", *flat_parameters(train)]
    assert flat.__name__ == "train"
    about, help_texts = parse_docstring(flat)
    assert about == "Train a network.\n\nA second paragraph."
    assert help_texts == flat_help(train)


def test_a_required_field_that_is_missing_is_named() -> None:
    with pytest.raises(TypeError, match="lr"):
        flattened(required)()


def test_a_symbol_has_no_capital() -> None:
    def weigh(*, attention_weight: float = 100, steps: int = 1) -> None:
        """Weigh.

        Args:
            attention_weight: λ of Eq. 5.
            steps: of all.
        """

    assert flat_help(weigh) == {"attention_weight": "λ of Eq. 5.", "steps": "Of all."}
