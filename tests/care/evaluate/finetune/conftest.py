from importlib import import_module
import pytest
import torch
from finetuning import ALL, COLOURS, SIZE, TWO, crash, tune
from PIL import Image
from torch import nn
import shards
from care import TappedEncoder, resnet18
from care.train.run import Run

trial_module = import_module("care.evaluate.trial")
finetune_module = import_module("care.evaluate.finetune")


@pytest.fixture(scope="session")
def sets(tmp_path_factory, make_image):
    """Paths of 30 images to train on and 18 to score; their class is the colour that prevails."""
    root = tmp_path_factory.mktemp("colours")
    for name, each in (("train", 5), ("val", 3)):
        for n in range(6 * each):
            folder = root / f"{name}-photos" / COLOURS[n % 6]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.blend(
                make_image(n + 100 * each), Image.new("RGB", (40, 40), COLOURS[n % 6]), 0.7
            )
            image.save(folder / f"{name}_{n}.png")
        shards.build(root / f"{name}-photos", root / name, workers=1)
    return root / "train", root / "val"


@pytest.fixture
def train(sets):
    return shards.open(sets[0])


@pytest.fixture
def val(sets):
    return shards.open(sets[1])


@pytest.fixture
def encoder():
    """In eval mode, as it comes from a run, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = resnet18(small=True, half=True)
    network(torch.randn(8, 3, SIZE, SIZE))
    return network.eval()


@pytest.fixture
def tiny():
    """An encoder of one layer, in train mode."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 16, 3, 4, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return TappedEncoder(nn.Sequential(*layers), "0")


@pytest.fixture(autouse=True)
def precision(monkeypatch):
    """Float32, whatever the machine, or what the test asks for."""

    def use(name):
        monkeypatch.setattr(finetune_module, "fastest_precision", lambda device: name)

    use("fp32")
    return use


@pytest.fixture
def trained(monkeypatch):
    """The classifiers in the order in which they were trained."""
    made = []

    class Kept(trial_module.Classifier):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(trial_module, "Classifier", Kept)
    return made


@pytest.fixture
def updates(monkeypatch):
    """(training, step) of every step that is taken, but for that numbered ``crash_at``."""

    class Updates(list):
        crash_at, action = None, staticmethod(crash)

    taken, take_step = Updates(), Run.take_step

    def record(self, step, *args):
        if len(taken) == taken.crash_at:
            taken.crash_at = None
            taken.action()
        taken.append((self.path.name, step))
        return take_step(self, step, *args)

    monkeypatch.setattr(Run, "take_step", record)
    return taken


@pytest.fixture
def whole(tiny, train, val, tmp_path):
    """Run and result of a call that nothing interrupted."""
    return tmp_path / "whole", tune(tiny, train, val, tmp_path / "whole", rows=ALL, **TWO)
