"""The settings of a run: what decides its result, fixed by the call that began it."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from care.errors import CareError
from shards.errors import Misuse

Settings = Mapping[str, Any]
# what a pre-training records, in the order of its messages
PRETRAINING_SETTINGS = (
    "data",
    "encoder",
    "init",
    "size",
    "batch_size",
    "steps",
    "warmup",
    "optimizer",
    "lr",
    "weight_decay",
    "momentum",
    "momentum_rises",
    "attention_weight",
    "objective",
    "t_stream",
    "attention",
    "views",
    "seed",
    "accumulate",
    "precision",
    "t_precision",
)
# what the command line calls a setting, with its value
_PHRASES = {
    "data": "SET {:.12}",
    "init": "--init {:.12}",
    "steps": "--epochs for {} steps",
    "warmup": "--warmup-epochs for {} steps",
    "objective": "--objective {}",
}
# the optimizer of a run that records none
PLAIN_OPTIMIZER = "sgd"
# values of what a run does not record where nothing else was chosen
_UNRECORDED = {"optimizer": PLAIN_OPTIMIZER}
# decided by other options, or by Python alone
_WITHOUT_OPTION = ("t_stream", "attention", "views", "t_precision")
# words of the command line, and the settings that follow from what they name
_WORDS = {
    "set": ("data",),
    "epochs": ("steps", "warmup"),
    "batch_size": ("batch_size", "steps", "warmup"),
    "warmup_epochs": ("warmup",),
    "hidden": ("objective",),
    "objective": ("objective",),
    "precision": ("precision", "t_precision"),
}


class Difference(NamedTuple):
    """A setting that a call has otherwise than the run.

    Attributes:
        name: of the setting.
        before: its value in the run, None where it has none.
        now: its value in the call.
    """

    name: str
    before: Any
    now: Any


class OtherSettings(CareError):  # noqa: N818 (what was found)
    """A call has other settings than the run that it is to continue."""


def settings_of(manifest: Mapping[str, Any]) -> Settings:
    """Settings in a checkpoint's manifest, with those that version 0.1 did not record."""
    settings: Settings = manifest["settings"]
    if "t_stream" not in settings or "attention" in settings:
        return settings
    heads = "4 heads of 128" if settings["t_stream"] else None  # whatever the encoder was
    return {**settings, "attention": heads, "t_precision": settings["precision"]}


def has_same_optimizer(before: Settings, now: Settings) -> bool:
    """Whether two calls train by the same kind of optimizer, whatever its numbers are."""
    of_each = [str(settings.get("optimizer", PLAIN_OPTIMIZER)) for settings in (before, now)]
    kinds = {text.partition(" ")[0] for text in of_each}
    return len(kinds) == 1


def allowed_settings(words: Iterable[str], settings: Collection[str]) -> set[str]:
    """The settings that may change, by what a user calls them.

    Args:
        words: as on the command line, such as ``epochs`` or ``warmup-epochs``, or as the settings
            are called, such as ``steps``.
        settings: names of all settings that there are.

    Raises:
        Misuse: A word names none of them.
    """
    allowed = set[str]()
    for word in words:
        name = word.lstrip("-").replace("-", "_").lower()
        names = set(_WORDS.get(name, (name,))) & set(settings)
        if not names:
            raise Misuse(
                f"wanted --allow-change with a setting of the run, got {word!r}; there are "
                f"{', '.join(_word(name) for name in settings)}"
            )
        allowed |= names
    return allowed


def differing_settings(before: Settings, now: Settings) -> list[Difference]:
    """What two calls have otherwise, in the order of the settings of a pre-training."""
    names = dict.fromkeys((*PRETRAINING_SETTINGS, *now, *before))
    return [
        Difference(name, before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
    ]


def refuse_other_settings(
    run: str | Path,
    before: Settings,
    now: Settings,
    allow_change: Collection[str] | None,
) -> None:
    """Let nothing go on with other settings than it began with.

    Args:
        run: run directory or URL, for the message.
        before: settings of the run.
        now: those of this call.
        allow_change: what may differ, as for ``allowed_settings``; None where there is no such
            option, as in evaluations.

    Raises:
        OtherSettings: Some differ; all of them are named.
        Misuse: ``allow_change`` names what is no setting.
    """
    allowed = allowed_settings(allow_change or (), {**now, **before})
    differences = [
        difference
        for difference in differing_settings(before, now)
        if difference.name not in allowed
    ]
    if not differences:
        return
    has_options = allow_change is not None
    of_run = [_phrase(name, value, has_options) for name, value, _ in differences]
    of_call = [_phrase(name, value, has_options) for name, _, value in differences]
    advice = "repeat the first call's settings"
    if has_options:
        words = _words_of(difference.name for difference in differences)
        changes = " ".join(f"--allow-change {word}" for word in words)
        advice += f", allow the change ({changes})"
    raise OtherSettings(
        f"{run} was trained with {', '.join(of_run)}; this call has {', '.join(of_call)}; "
        f"{advice}, or choose a new run directory"
    )


def _phrase(name: str, value: Any, has_options: bool) -> str:
    """A setting and its value in a message, in the command line's words where it has some."""
    value = _UNRECORDED.get(name) if value is None else value
    if not has_options or name in _WITHOUT_OPTION:
        return f"{name}={value}"
    phrase = _PHRASES.get(name, f"--{name.replace('_', '-')} {{}}")
    return phrase.format(str(value))


def _words_of(settings: Iterable[str]) -> list[str]:
    """What a user calls these settings, without those that follow from others of them."""
    names = list(settings)
    following = set[str]()
    for first, *others in _WORDS.values():
        if first in names:
            following.update(others)
    return [_word(name) for name in names if name not in following]


def _word(name: str) -> str:
    """What a user calls a setting."""
    words = {first: word for word, (first, *_) in _WORDS.items()}
    return words.get(name, name).replace("_", "-")
