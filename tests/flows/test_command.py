import shlex
from pathlib import Path
import pytest
from typer.main import get_command
from flows.cli.pipeline import app
from flows.command import command_of
from flows.experiment import Detection, Experiment, Images, Judging, Scenes, Training


def parsed(command: str) -> dict[str, object]:
    """What the command line makes of a command that is not the default."""
    words = shlex.split(command)
    assert words[:3] == ["care", "pipeline", "run"]
    run = get_command(app).commands["run"]
    context = run.make_context("run", words[3:])
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name).name != "DEFAULT"
    }


def test_defaults_are_not_typed() -> None:
    assert command_of(Experiment(out="demo")) == "care pipeline run --out DIR"


def test_what_was_chosen_comes_back_from_the_command_line() -> None:
    experiment = Experiment(
        out="lab",
        training=Training(
            protocol="quick",
            steps=30,
            lr=0.05,
            attention_weight=50.0,
            c_stream=False,
            objectives=("byol", "moco-v2"),
        ),
        judging=Judging(
            baselines=["random:resnet18", "supervised:timm:a/b:c", "runs/r50"], labels=(0.01, 0.5)
        ),
        scenes=Scenes(train_scenes=100),
        seed=3,
    )
    values = parsed(command_of(experiment))
    assert values.pop("out") == "DIR"
    assert values == {
        "protocol": "quick",
        "steps": 30,
        "lr": 0.05,
        "attention_weight": 50.0,
        "c_stream": False,
        "objectives": ("byol", "moco-v2"),
        "baselines": ["random:resnet18", "supervised:timm:a/b:c", "r50"],
        "labels": (0.01, 0.5),
        "train_scenes": 100,
        "seed": 3,
    }


def test_one_stream_alone_is_typed() -> None:
    command = command_of(Experiment(out="lab", training=Training(t_stream=False)))
    assert parsed(command)["t_stream"] is False


@pytest.mark.parametrize("name", ["my photos", "fotos"])
def test_of_paths_only_the_last_part_is_shown(tmp_path: Path, name: str) -> None:
    from PIL import Image

    for label in ("a", "b"):
        for number in range(2):
            path = tmp_path / "secret" / name / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 50 + number).save(path)
    lists = tmp_path / "lists" / "coco.json"
    lists.parent.mkdir()
    lists.write_text("{}")
    images = Images(images=f"{tmp_path}/secret/{name}/", bands=(1, 2, 3), value_range="0,4095")
    detection = Detection(coco_train=str(lists), coco_val="scenes:0+8")
    command = command_of(Experiment(out="lab", images=images, detection=detection))
    values = parsed(command)
    assert values["images"] == name
    assert values["coco_train"] == "coco.json"
    assert values["coco_val"] == "scenes:0+8"
    assert values["bands"] == (1, 2, 3)
    assert values["value_range"] == "0,4095"
    assert "secret" not in command
