"""What is deployed, without a server: `test_deployments.py` has one."""

import inspect
from pathlib import Path
import pytest
import yaml
from PIL import Image
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
import shards
from care.train import AdamW
from care.train.recipes import RECIPES, make_optimizer, recipe_optimizer
from flows.deployments import flows_to_deploy
from flows.single import pretraining_inputs
from shards.errors import Misuse

FILE = yaml.safe_load(Path(__file__).parents[2].joinpath("prefect.yaml").read_text())
FLOWS = {flow.name: flow for flow in flows_to_deploy()}


def test_the_project_file_lists_the_flows_that_serve_and_deploy_have() -> None:
    listed = {entry["name"]: import_object(entry["entrypoint"]) for entry in FILE["deployments"]}
    assert listed == FLOWS
    assert "care-reproduce" in FLOWS


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_a_form_can_be_made_of_a_flow(flow: Flow) -> None:
    schema = parameter_schema(flow.fn)
    assert [*schema.properties] == [*inspect.signature(flow.fn).parameters]
    assert flow.fn.__doc__


def test_what_a_form_of_the_grid_gives_is_what_the_flow_takes() -> None:
    filled = {"arms": ["care"], "seeds": [1, 2], "labels": [0.1], "images": None}
    got = FLOWS["care-reproduce"].validate_parameters(filled)
    assert got["arms"] == ("care",)
    assert got["seeds"] == (1, 2)
    assert got["labels"] == (0.1,)


def test_a_training_of_its_own_takes_what_its_objective_says(tmp_path: Path) -> None:
    images = ((f"{n}", Image.new("RGB", (16, 16), (n, 0, 0)), 0) for n in range(40))
    shards.build(images, tmp_path)
    form = {"train": str(tmp_path), "size": 32, "batch_size": 4, "steps": 500}
    form |= {"encoder": "resnet18-small-half", "t_stream": True}
    plain = form | {"hidden": 4096, "lr": 0.05, "warmup": 0, "weight_decay": 0.0001}
    plain |= {"momentum": 0.99, "momentum_rises": True}
    # as it was before there were others
    assert pretraining_inputs(form | {"objective": "byol"}) == plain
    inputs = pretraining_inputs(form | {"objective": "swav", "lr": 0.1, "momentum_rises": False})
    recipe = RECIPES["swav"]
    numbers = {field: inputs[field] for field in ("lr", "warmup", "weight_decay")}
    optimizer = make_optimizer(inputs["optimizer"] | numbers)
    # ten of fifty epochs are more than a tenth
    assert optimizer == recipe_optimizer(recipe, lr=0.1, warmup=50)
    assert (inputs["objective"], inputs["hidden"], inputs["momentum_rises"]) == (
        "swav",
        2048,
        False,
    )
    adamw = pretraining_inputs(form | {"optimizer": "adamw", "weight_decay": 0.3})
    assert (adamw["objective"], adamw["optimizer"]["name"]) == ("byol", "adamw")
    assert (adamw["lr"], adamw["weight_decay"]) == (AdamW().lr, 0.3)
    of_vit = form | {"encoder": "vit-tiny8", "t_stream": False, "objective": "pirl"}
    assert pretraining_inputs(of_vit)["views"][1]["patch"] == 8
    with pytest.raises(Misuse, match="wanted an encoder such as lab:resnet50"):
        pretraining_inputs(form | {"objective": "cmc"})


def test_the_form_of_a_training_has_objective_and_optimizer() -> None:
    flow = FLOWS["care-pretrain"]
    got = flow.validate_parameters(
        {"out": "o", "train": "t", "steps": 1, "objective": "moco-v2", "optimizer": "lars"}
    )
    assert (got["objective"], got["optimizer"], got["lr"]) == ("moco-v2", "lars", None)
    described = parameter_schema(flow.fn).properties
    assert "have a recipe each" in described["objective"]["description"]
    assert described["lr"]["description"].endswith("of byol 0.05.")
    with pytest.raises(ParameterTypeError, match=r"objective: Input should be .byol., .simsiam."):
        flow.validate_parameters({"out": "o", "train": "t", "steps": 1, "objective": "mocco"})
