import os
import tempfile

# Prefect's database of the tests, not the user's; Prefect reads this at import
_home = tempfile.TemporaryDirectory(prefix="prefect-")
os.environ["PREFECT_HOME"] = _home.name

TINY = {
    "steps": 3, "batch_size": 8, "hidden": 16, "size": 32, "train_scenes": 32, "val_scenes": 16, "checkpoint_every": 2,
    "labels": (0.5,), "finetune_steps": 2, "detection_size": 32, "detection_iterations": 2,
}  # fmt: skip
