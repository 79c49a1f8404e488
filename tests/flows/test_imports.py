import subprocess
import sys
import pytest


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import shards", {"torch", "prefect", "webdataset"}),
        ("import care, care.train, care.evaluate, care.show", {"prefect", "webdataset", "flows"}),
        ("import flows", {"torch", "prefect"}),
        (
            "import sys; sys.argv = ['care', '--help']; from flows.cli import main; main()",
            {"torch", "prefect", "torchvision"},
        ),
    ],
)
def test_imports_stay_light(statement: str, absent: set[str]) -> None:
    code = f"import sys, atexit; atexit.register(lambda: print('LOADED', *sorted({absent!r} & set(sys.modules))))\n{statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "LOADED"
