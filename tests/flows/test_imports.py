import subprocess
import sys
import pytest

HELP = "import sys; sys.argv = ['care', {words} '--help']; from flows.cli import main; main()"
SCRIPT = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sorted({absent} & set(sys.modules))))
{statement}
"""


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import shards", {"torch", "prefect", "webdataset", "typer"}),
        (
            "import care, care.train, care.evaluate, care.show",
            {"prefect", "webdataset", "flows", "typer"},
        ),
        ("import flows", {"torch", "prefect"}),
        (HELP.format(words=""), {"torch", "prefect", "torchvision"}),
        (HELP.format(words="'shards', 'build',"), {"torch", "prefect", "torchvision"}),
        ("import flows.cli.pipeline", {"torch", "torchvision"}),
    ],
)
def test_imports_stay_light(statement: str, absent: set[str]) -> None:
    code = SCRIPT.format(absent=absent, statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
