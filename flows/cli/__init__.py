"""The command line ``care``: every command is a few lines around one public function.

Options are read from the function's signature and docstring (``options.py``); tables and JSON are
printed by ``tables.py``. Nothing is computed here. What takes seconds to import, torch and Prefect,
is imported when a command needs it: ``tests/flows/test_imports.py`` holds that ``care --help`` is
quick, and ``tests/flows/test_frozen_options.py`` that no option changes unnoticed.
"""

from flows.cli.root import app, main

__all__ = ["app", "main"]
