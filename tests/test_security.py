"""What docs/security.md promises of files: none of them is unpickled, anywhere."""

import ast
import subprocess
import sys
from pathlib import Path
import pytest
from house_plan import PACKAGES, ROOT

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# modules of the standard library and others that make objects of any class out of bytes
UNPICKLING = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "shelve",
}
# after this, finding a class for a pickle ends the process
GUARD = """
import sys

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled: {arguments}")

sys.addaudithook(refuse)
"""
IMPORTS = """
import sys
from pathlib import Path
from PIL import Image
import shards
from care import BYOL, streams_for
from care.evaluate import knn
from care.train import Machine, load_encoder, pretrain
from flows import works

works.import_all()
"""
# what a user does with files
LOADING = """
folder = Path(sys.argv[1])
for number in range(24):
    path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((32, 32), 20 + 200 * (number % 2)).convert("RGB").save(path)
shards.build(folder / "photos", folder / "set", workers=1)
data = shards.open(folder / "set")
for steps in (2, 3):  # the second call goes on from the checkpoint
    c, t = streams_for("resnet18-small-half", size=32, objective=BYOL(hidden=16))
    pretrain(
        data, folder / "run", c, t, size=32, batch_size=8, steps=steps,
        machine=Machine(workers=0, checkpoint_every=1), allow_change=("steps",),
    )
encoder = load_encoder(str(folder / "run"))
load_encoder(str(folder / "run" / "encoder.safetensors"))
for _ in range(2):  # the second one has the features of the first
    print(knn(encoder, data, data, k=3, workers=0, cache=folder / "cache").measures)
"""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_imports_what_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert UNPICKLING.isdisjoint(alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.partition(".")[0] not in UNPICKLING
        if isinstance(node, ast.Call):
            check_call(node)


def check_call(node: ast.Call) -> None:
    """Of torch's and numpy's loaders the forms that never unpickle."""
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name == "torch.load":
        assert keywords["weights_only"] == "True"
    if name in ("np.load", "numpy.load"):
        assert keywords.get("allow_pickle", "False") == "False"


def test_what_users_load_is_not_unpickled(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTS + GUARD + LOADING, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("top1") == 2


def test_a_class_in_a_file_would_have_been_seen() -> None:
    work = "import collections, pickle; pickle.loads(pickle.dumps(collections.OrderedDict(a=1)))"
    command = [sys.executable, "-c", GUARD + work]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "unpickled: ('collections', 'OrderedDict')" in ended.stderr
