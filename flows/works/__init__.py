"""What a stage does: plain functions without Prefect, each in a module of its own.

A work leaves its outputs in a folder of its own, path or URL, and returns JSON: what it found, the
``outputs`` with their digests, a line of ``text``. It knows neither keys nor records nor other
stages: ``flows.records`` does. The digest of its code follows its imports: it imports what
it runs and nothing for convenience. ``tests/flows/test_identity.py`` holds that.
"""

from importlib import import_module
from flows.result import Result

# by the name of its function: the module of a work
WORKS = {
    "build": "flows.works.data",
    "pretrain": "flows.works.training",
    "features": "flows.works.features",
    "judge": "flows.works.judging",
    "report": "flows.works.reporting",
}


def import_all() -> None:
    """Import every work: processes that are forked afterwards have nothing left to import."""
    for module in WORKS.values():
        import_module(module)


def run_work(work: str, out: str, inputs: Result) -> Result:
    """Do a work, in this process.

    Args:
        work: a name in ``WORKS``.
        out: folder for its outputs, path or URL.
        inputs: its keywords.

    Returns:
        What the function of that name returns.
    """
    function = getattr(import_module(WORKS[work]), work)
    result: Result = function(out, **inputs)
    return result
