"""What a form of export is: how it is written, and how what was written is asked for features."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from jaxtyping import Float
from torch import Tensor
from care.encoders import Encoder
from care.export.preprocessing import Preprocessing

# features of crops from 0 to 1, by the library that a folder was written for
Features = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]


class Form(NamedTuple):
    """A form in which another library has encoders.

    Attributes:
        package: what loads it, as it is imported; "" where nothing here can ask it.
        extra: of this package, which installs that; "" of what is always there.
        lacks: what the library lacks for an encoder, as a clause; "" if it has a place for it.
        write: writes such an encoder into an empty folder.
        load: loads a folder by the library, every weight of it.
        usage: how a user loads it, as Markdown.
        caveat: what reading it again does not show; "" of most.
    """

    package: str
    extra: str
    lacks: Callable[[Encoder], str]
    write: Callable[[Encoder, Preprocessing, Path], None]
    load: Callable[[Path, Preprocessing], Features]
    usage: Callable[[Encoder, Preprocessing], str]
    caveat: str = ""
