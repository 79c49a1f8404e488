"""Names of other people's files as they are printed: no name commands a terminal or ends a line."""

import unicodedata

# Python keeps a byte that is no UTF-8 as one of these characters
_FIRST_BYTE = "\udc80"
_LAST_BYTE = "\udcff"


def printable(text: str, *, keep: str = "") -> str:
    r"""Write what is not to be seen in a text as escapes.

    Args:
        text: such as a file's name, which may hold line ends, colours of a terminal or bytes that
            are no UTF-8.
        keep: characters that stay as they are, such as the line ends of a text of our own.

    Returns:
        The text with ``\x1b`` for an escape, ``\n`` for a line end and ``\xff`` for a byte that is
        no UTF-8; letters of all scripts and spaces of all widths stay.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in keep else _printable_character(character) for character in text
    )


def _printable_character(character: str) -> str:
    """A character, or its escape where it is not to be seen."""
    if _FIRST_BYTE <= character <= _LAST_BYTE:
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
