"""The verbs of ``care`` and ``shards`` as cached, resumable runs, and the command line.

Here live what an experiment consists of, how its stages are scheduled, followed and recorded, the
deployments, and the command ``care``. Nothing is computed here that ``care`` or ``shards`` could
compute; they import nothing of this package, and Prefect is imported nowhere else (import-linter
holds both). What decides a result is in the key of its stage, so nothing is done twice and nothing
written over (``tests/flows/test_identity.py``). ``import flows`` imports neither torch nor Prefect
(``tests/flows/test_imports.py``).
"""

import os
from typing import Any

# Prefect reads its settings at import. It is to be quiet and private unless the user's environment
# says otherwise.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")

__all__ = ["care_pipeline"]


def __getattr__(name: str) -> Any:
    """Import the flow when it is asked for: `care --help` does not wait for Prefect and torch."""
    if name in __all__:
        from flows.pipeline import care_pipeline

        return care_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
