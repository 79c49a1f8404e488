"""Where the samples of a WebDataset have their labels: beside the images, or in their folders.

WebDataset itself says nothing of it but ``.cls``. Others write the label into a ``.json``, or a
word into a ``.txt``; but most of the JSONs and texts in the world are captions, which are no
classes. So these are taken only where their values say that they are, and it is told.
"""

import json
import tarfile
from collections.abc import Sequence
from typing import Any
from shards.sources.candidates import suffix

_MAX_CLASS_BYTES = 1000
_MAX_JSON_BYTES = 1 << 20
_MAX_WORD = 40
# of a JSON; where there are several, the first that is there
_JSON_KEYS = (
    *("label", "cls", "class", "target", "category"),
    *("class_id", "label_id", "category_id", "class_name", "label_name", "classname"),
)


def read_texts(tar: tarfile.TarFile, info: tarfile.TarInfo) -> dict[str, str]:
    """What a member says that may be a label.

    Args:
        tar: the tar.
        info: a file in it.

    Returns:
        Of a ``.cls`` its text as ``cls``; of a ``.txt`` its text as ``txt``, "" if that is too
        long for a class; of a ``.json`` the values that may be classes, by their keys, and ``json``
        with "". Nothing of any other member.
    """
    kind = suffix(info.name)
    if kind == ".cls":
        return {"cls": _read_text(tar, info, _MAX_CLASS_BYTES)}
    if kind == ".txt":
        text = _read_text(tar, info, _MAX_CLASS_BYTES)
        is_word = len(text) <= _MAX_WORD and "\n" not in text
        return {"txt": text if is_word else ""}
    if kind == ".json":
        return {"json": ""} | _values(_read_text(tar, info, _MAX_JSON_BYTES))
    return {}


def choose_label(texts: Sequence[dict[str, str]]) -> str | None:
    """Which of the texts beside images are their classes.

    Args:
        texts: those of each image, by what they are of, see ``read_texts``.

    Returns:
        ``cls``, a key of the JSONs, ``txt``, or None if none of them is a class.
    """
    if any(text.get("cls") for text in texts):
        return "cls"
    for key in _JSON_KEYS:
        values = [text[key] for text in texts if text.get(key)]
        if values and (_repeat(values) or all(map(str.isdecimal, values))):
            return key
    words = [text["txt"] for text in texts if "txt" in text]
    # one text at all images says nothing; one at each is a caption, and so are those beside a JSON
    is_class = all(words) and len({*words}) > 1 and _repeat(words)
    has_json = any("json" in text for text in texts)
    return "txt" if is_class and not has_json else None


def _repeat(values: Sequence[str]) -> bool:
    """Whether a value is that of two images on average, as of classes."""
    return 2 * len({*values}) <= len(values)


def note_of_label(kind: str) -> list[str]:
    """What is to be told of where the classes are from; nothing of a ``.cls``."""
    if kind == "cls":
        return []
    place = "texts of the .txt members" if kind == "txt" else f"values of {kind} in the .json"
    return [f"the classes are the {place}; if they are none, use --no-classes"]


def _read_text(tar: tarfile.TarFile, info: tarfile.TarInfo, limit: int) -> str:
    """The text of a member, at most so many bytes of it."""
    file = tar.extractfile(info)
    return "" if file is None else file.read(limit).decode(errors="replace").strip()


def _values(text: str) -> dict[str, str]:
    """The values in a JSON that may be classes: numbers without a point, and texts."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    values = dict[str, str]()
    for key in _JSON_KEYS:
        value = document.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            values[key] = str(value).strip()
    return values
