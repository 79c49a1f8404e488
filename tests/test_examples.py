import re
import runpy
from pathlib import Path
import pytest
import shards
from care.train.precision import StreamPrecisions
from shards import scenes

EXAMPLES = sorted(Path(__file__).parent.parent.joinpath("examples").glob("*.py"))
SLOW = {"released": pytest.mark.parity}  # a whole ResNet-50


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples")
    for part in ("train", "val"):
        scenes.write(root / part, count=40, size=48)
        shards.build(root / part / "images", root / "demo" / part, workers=1)
    return root


@pytest.mark.parametrize(
    "script", [pytest.param(path, id=path.stem, marks=SLOW.get(path.stem, ())) for path in EXAMPLES]
)
def test_examples_run(
    script: Path, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    monkeypatch.setattr("sys.argv", [str(script), "1"])
    # of several numbers, the first and the last
    shorter = re.sub(r" in \((\d+), .*, (\d+)\):", r" in (\1, \2):", script.read_text())
    (demo / script.name).write_text(shorter)
    # each of them would be measured, for longer than it computes
    fp32 = StreamPrecisions("fp32", "fp32")
    monkeypatch.setattr("care.train.measured_precision.measured_precisions", lambda *_, **__: fp32)
    runpy.run_path(str(demo / script.name), run_name="__main__")
    printed = re.findall(r"^(.+): kNN ([\d.]+) %$", capsys.readouterr().out, re.MULTILINE)
    assert len(printed) == len({name for name, _ in printed}) >= 1
    assert all(0 <= float(top1) <= 100 for _, top1 in printed)
