"""How a process ends that has failed or was stopped: with one line on stderr and an exit code.

Here an exception becomes a message; everything else raises. The codes are 1 for a failure, 2 for a
mistake in the call and 3 for a stop on request, as the classes of ``shards.errors`` have them.
Tests: ``tests/flows/test_cli.py``.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
import typer
from shards.errors import Failure, Stopped
from shards.printable import printable


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """End the process where the block fails as a command does: by a message and an exit code.

    A ``Failure``, an ``OSError`` and a Ctrl-C end it so; any other exception is a bug of ours, and
    its traceback is wanted.
    """
    try:
        yield
        return
    except (Failure, OSError) as error:
        code = error.code if isinstance(error, Failure) else Failure.code
        message = printable(str(error))
    except SystemExit as ending:
        # Typer makes an exit with a code of its own of a Ctrl-C
        if not caused(ending, KeyboardInterrupt):
            raise
        code = Stopped.code
        message = "finished work is kept, the same command continues"
    if code != Stopped.code:
        typer.secho(f"error: {message}", fg="red", err=True)
        sys.exit(code)
    if not message.startswith("stopped"):
        message = f"stopped: {message}"
    typer.secho(message, fg="yellow", err=True)
    # torchrun takes any other code for a crash; the status of the run says that it was stopped
    sys.exit(0 if "TORCHELASTIC_RUN_ID" in os.environ else code)


def caused(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an exception is of one of some kinds, or was raised while one was handled."""
    while error and not isinstance(error, kinds):
        error = error.__context__
    return error is not None
