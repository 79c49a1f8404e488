import importlib
import pkgutil
import re
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
import shards
from care import resnet50
from care.train import load_encoder
from care.train.weights import digest_of, save_encoder
from shards import scenes

README = Path(__file__).parent.parent / "README.md"


def test_the_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes.write(tmp_path / "images", count=40, size=64)
    shards.build(tmp_path / "images" / "images", tmp_path / "demo" / "train")
    _, block = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    shorter = block.replace("total = 200 ", "total = 2 ").replace("batch_size=32", "batch_size=8")
    assert shorter != block
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    exec(compile(shorter, "README.md", "exec"), seen)
    assert seen["step"] == 1
    assert float(seen["loss"].total.detach()) > 0
    assert "step 0 of 2: loss " in capsys.readouterr().out
    encoder = load_encoder("my-encoder.safetensors")
    assert (encoder.name, encoder.size) == ("resnet18-small", 64)
    assert digest_of(encoder) == digest_of(seen["c"].backbone.online)


def test_the_encoder_is_used_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same features by this package and by torchvision's model, loaded strictly."""
    block, _ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    torch.manual_seed(0)
    save_encoder(tmp_path / "runs" / "r50" / "encoder.safetensors", resnet50().eval(), size=224)
    noise = np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    # of a run there would be a checkpoint, too
    of_file = block.replace(
        'load_encoder("runs/r50")', 'load_encoder("runs/r50/encoder.safetensors")'
    )
    assert of_file != block
    seen: dict[str, torch.Tensor] = {}
    exec(compile(of_file, "README.md", "exec"), seen)
    assert seen["features"].shape == (1, 2048)
    torch.testing.assert_close(seen["features"], seen["same"], rtol=1e-4, atol=1e-5)


DOCS = sorted(README.parent.joinpath("docs").glob("*.md"))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_the_python_blocks_of_the_docs_run(page: Path) -> None:
    if page.stem == "data":
        pytest.skip("its recipes need data, tests/shards/test_recipes.py runs them")
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_what_the_docs_name_exists(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`(care(?:\.\w+)+)`", text):
        found = pkgutil.resolve_name(name.split(".")[0])
        for part in name.split(".")[1:]:
            found = getattr(found, part, None) or importlib.import_module(
                f"{found.__name__}.{part}"
            )
    for path, test in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text):
        source = README.parent.joinpath(path).read_text()
        assert not test or f"def {test}(" in source, f"{path}::{test}"
