"""Prefect chains the verbs of ``care`` and ``shards`` into cached, resumable runs; the command line lives here too."""

import os
from typing import Any

# Prefect reads its settings at import. Quiet and private unless the user's environment says otherwise.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")

__all__ = ["care_pipeline"]


def __getattr__(name: str) -> Any:
    # Lazily, or `care --help` would wait for prefect and torch.
    if name in __all__:
        from flows.pipeline import care_pipeline

        return care_pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
