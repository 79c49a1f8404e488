import os
import tempfile

# Prefect's database of the tests, not the user's; Prefect reads this at import
_home = tempfile.TemporaryDirectory(prefix="prefect-")
os.environ["PREFECT_HOME"] = _home.name
