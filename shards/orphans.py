"""Processes that end with the one that has started them, so that none is left behind.

Linux' kernel sends the signal itself. Elsewhere a thread looks whether the parent is gone.
"""

import ctypes
import os
import signal
import threading
import time

# of prctl: the signal that a process gets when its parent dies
_PR_SET_PDEATHSIG = 1
_SECONDS_BETWEEN_LOOKS = 0.5


def end_with_parent(number: signal.Signals) -> None:
    """Have this process get a signal when the one that started it dies.

    Args:
        number: of the signal.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        return
    arguments = (os.getppid(), number)
    threading.Thread(target=_wait_for_the_end, args=arguments, daemon=True).start()


def _wait_for_the_end(parent: int, number: signal.Signals) -> None:
    """Send this process a signal once its parent is another one."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), number)
