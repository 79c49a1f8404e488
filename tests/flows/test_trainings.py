"""Objectives in a pipeline and in a grid: who is trained how, and what it is called."""

import json
import sys
from dataclasses import replace
from pathlib import Path
import pytest
from care.errors import CareError
from care.objectives.by_name import OBJECTIVES
from care.train.optimizers import OPTIMIZERS
from care.train.recipes import RECIPES, make_optimizer, recipe_optimizer, recipe_views
from flows.experiment import Detection, Experiment, Judging, Training
from flows.facts import Facts
from flows.graph import encoders, judging_stages, report_stage, training_stages
from flows.protocols import PAPER, PHOTOS, QUICK
from flows.recipes import (
    OBJECTIVE_NAMES,
    OptimizerName,
    RecipeChanges,
    describe_recipe,
    recipe_inputs,
)
from flows.reproduce.regime import RegimeChoice
from flows.reproduce.runs import ArmChoice, Grid
from flows.trainings import planned_trainings, recipes_of, training_settings
from flows.works.training import _views
from shards.errors import Misuse

FACTS = Facts(images=2000, label_counts={0.5: 1000})
NOTHING = RecipeChanges()
VIEWS = {"size": 224, "t_stream": True, "encoder": "resnet50"}
OTHERS = [name for name in OBJECTIVE_NAMES if name != "byol"]


def experiment(tmp_path: Path, **training) -> Experiment:
    return Experiment(out=str(tmp_path), training=Training(**training))


def test_names_are_those_that_the_method_knows() -> None:
    assert OBJECTIVE_NAMES == tuple(OBJECTIVES) == tuple(RECIPES)
    assert OptimizerName.__args__ == tuple(OPTIMIZERS)


def test_byol_is_trained_as_ever(tmp_path: Path) -> None:
    assert recipe_inputs("byol", QUICK, NOTHING, warmup=25, **VIEWS) == {}
    assert (
        recipe_inputs("byol", QUICK, RecipeChanges(lr=1, optimizer="sgd"), warmup=25, **VIEWS) == {}
    )
    alone, care = training_stages(experiment(tmp_path), FACTS)
    care_inputs = {name: value for name, value in care.inputs.items() if name != "train"}
    assert care_inputs == {
        "t_stream": True,
        "encoder": "resnet18-small-half",
        "size": 48,
        "hidden": 1024,
        "views": QUICK.views,
        "seed": 0,
        "steps": 250,
        "batch_size": 32,
        "warmup": 25,
        "lr": 0.4,
        "momentum": 0.99,
        "attention_weight": 100,
        "checkpoint_every": 100,
    }
    assert alone.inputs == care.inputs | {"t_stream": False, "attention_weight": 0}
    assert recipes_of(experiment(tmp_path), FACTS) == {}


@pytest.mark.parametrize("name", OTHERS)
def test_by_the_papers_protocol_a_stage_is_given_the_recipe_itself(name: str) -> None:
    recipe = RECIPES[name]
    inputs = json.loads(json.dumps(recipe_inputs(name, PAPER, NOTHING, warmup=90, **VIEWS)))
    assert inputs["objective"] == name
    assert inputs["hidden"] == OBJECTIVES[name].hidden
    assert (inputs["momentum"], inputs["momentum_rises"]) == (
        recipe.momentum,
        recipe.momentum_rises,
    )
    assert _views(inputs["views"]) == recipe_views(recipe, size=224, t_stream=True)
    numbers = {field: inputs[field] for field in ("lr", "warmup", "weight_decay")}
    optimizer = make_optimizer({"name": "sgd", **inputs.get("optimizer", {}), **numbers})
    warmup = 90 if recipe.warmup_epochs else 0
    assert optimizer == recipe_optimizer(recipe, warmup=warmup)


@pytest.mark.parametrize(
    ("name", "steps", "warmup"),
    [
        # 200 epochs of 20 steps: ten of warm-up, and for a ViT 40 of 300
        ("simclr", None, 10 * 20),
        ("moco-v3-vit", None, round(200 / 7.5 * 20)),
        # at most a tenth of a shorter training
        ("swav", 600, 60),
        ("moco-v2", None, 0),
        ("byol", 600, 30),
        ("byol", None, 200),
    ],
)
def test_by_the_papers_protocol_the_rate_rises_as_in_care_pretrain(
    tmp_path: Path, name, steps, warmup
) -> None:
    facts = Facts(images=20 * 1024, label_counts={})
    asked_for = experiment(
        tmp_path, protocol="paper", objectives=(name,), steps=steps, t_stream=False
    )
    assert training_settings(asked_for, facts).warmup == warmup


def test_a_short_protocol_changes_a_recipe_in_proportion_to_byols() -> None:
    inputs = recipe_inputs("moco-v2", PHOTOS, NOTHING, warmup=200, **VIEWS)
    assert inputs["lr"] == pytest.approx(8 * 0.03)
    assert (inputs["hidden"], inputs["momentum"], inputs["warmup"]) == (512, 0.99, 0)
    for view in inputs["views"]:
        assert view["jitter"] == PHOTOS.views["jitter"]
        assert view["blur_p"] == 0.5  # the recipe's


def test_what_is_asked_for_is_nobodys_recipe() -> None:
    changes = RecipeChanges("adamw", lr=0.001, momentum=0.9, hidden=64)
    inputs = recipe_inputs("swav", PAPER, changes, warmup=5, **VIEWS)
    assert (inputs["lr"], inputs["momentum"], inputs["hidden"]) == (0.001, 0.9, 64)
    assert inputs["weight_decay"] == 0.1  # AdamW's own
    assert inputs["optimizer"]["name"] == "adamw"
    lars = recipe_inputs("byol", PAPER, RecipeChanges("lars"), warmup=5, **VIEWS)
    assert (lars["objective"], lars["optimizer"]["name"], lars["lr"]) == ("byol", "lars", 0.45)


def test_objectives_are_trained_side_by_side_each_alone_and_with_the_t_stream(tmp_path) -> None:
    both = experiment(tmp_path, objectives=("byol", "moco-v2"), c_stream=True)
    assert [(training.name, training.stage) for training in planned_trainings(both)] == [
        ("C-stream alone", "pretrain-c-stream"),
        ("CARE", "pretrain"),
        ("MoCo v2 alone", "pretrain-moco-v2-alone"),
        ("CARE with MoCo v2", "pretrain-moco-v2"),
    ]
    stages = {stage.name: stage.inputs for stage in training_stages(both, FACTS)}
    assert "objective" not in stages["pretrain"]
    assert stages["pretrain-moco-v2"]["objective"] == "moco-v2"
    assert stages["pretrain-moco-v2-alone"] == stages["pretrain-moco-v2"] | {
        "t_stream": False,
        "attention_weight": 0,
    }
    names = [stage.name for stage in judging_stages(both, FACTS)]
    assert len(names) == len({*names})
    assert {"knn", "knn-c-stream-alone", "knn-moco-v2-alone", "knn-care-with-moco-v2"} <= {*names}
    # what is there for comparison is not fine-tuned, what was trained by CARE is
    assert "finetune-0.5-care-with-moco-v2" in names
    assert "finetune-0.5-moco-v2-alone" not in names


@pytest.mark.parametrize(
    ("training", "names"),
    [
        ({"objectives": ("simclr",), "c_stream": False}, ["CARE with SimCLR"]),
        ({"objectives": ("simclr", "simclr"), "t_stream": False}, ["SimCLR alone"]),
        ({"t_stream": False}, ["C-stream alone"]),
        (
            {"objectives": ("swav", "byol"), "t_stream": False},
            ["SwAV alone", "C-stream alone"],
        ),
    ],
)
def test_the_first_objective_is_what_a_pipeline_is_for(tmp_path: Path, training, names) -> None:
    asked_for = experiment(tmp_path, **training)
    trainings = planned_trainings(asked_for)
    assert [training.name for training in trainings] == names
    assert (trainings[0].stage, trainings[0].role) == ("pretrain", "care")
    assert encoders(asked_for)[1].tag == ""
    results = {stage.name: {"text": "", "url": ""} for stage in training_stages(asked_for, FACTS)}
    results |= {name: {"text": "", "url": ""} for name in ("train", "val")}
    results |= {name: {"text": "", "url": ""} for name in ("coco-train", "coco-val")}
    results["pretrain"] |= {"losses": {}, "digest": "d"}
    inputs = report_stage(asked_for, FACTS, results, []).inputs
    assert inputs["main"] == names[0]
    assert inputs["results"]["title"] == f"{names[0]} on procedural scenes"
    assert [*inputs["encoders"]][1:] == names


def test_results_tell_how_others_than_byol_were_trained(tmp_path: Path) -> None:
    both = experiment(tmp_path, objectives=("byol", "swav"), c_stream=False)
    (name,) = recipes = recipes_of(both, FACTS)
    assert name == "CARE with SwAV"
    assert recipes[name]["text"] == (
        "by the recipe of SwAV: larc, lr 2.4 for 256 images, weight decay 1e-06, 25 steps of"
        " warm-up, target's momentum 0.99, its views"
    )
    assert training_settings(both, FACTS).lr == 0.4
    assert training_settings(experiment(tmp_path, objectives=("swav",)), FACTS).lr == 2.4


def test_a_recipe_in_words_says_what_stays() -> None:
    settings = {"optimizer": "sgd", "lr": 0.03, "momentum": 0.999, "momentum_rises": False}
    assert describe_recipe("moco-v2", settings) == (
        "by the recipe of MoCo v2: sgd, lr 0.03 for 256 images, target's momentum 0.999, which"
        " stays, its views"
    )


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"of byol, .*, moco-v3-vit; got mocco, x$"):
        experiment(tmp_path, objectives=("byol", "mocco", "x"))
    with pytest.raises(Misuse, match=r"got none$"):
        experiment(tmp_path, objectives=())
    with pytest.raises(Misuse, match="got --no-c-stream and --no-t-stream"):
        experiment(tmp_path, t_stream=False, c_stream=False)


def names_of(**choice) -> list[str]:
    return [arm.name for arm in ArmChoice(**choice).chosen()]


def test_a_grid_has_the_arms_of_the_objectives_that_are_asked_for() -> None:
    assert names_of() == ["c-stream", "care"]
    assert names_of(objectives=("moco-v2", "byol")) == [
        "objective-moco-v2-alone",
        "objective-moco-v2",
        "c-stream",
        "care",
    ]
    assert names_of(arms=("random",), objectives=("swav",), t_stream=False) == [
        "random",
        "objective-swav-alone",
    ]
    with pytest.raises(Misuse, match="got mocco"):
        names_of(objectives=("mocco",))
    with pytest.raises(Misuse, match="wanted arms without a T-stream, got lambda"):
        names_of(arms=("lambda",), t_stream=False)


def test_a_vit_beside_a_t_stream_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    from flows.checks import check_encoders
    from flows.reproduce.flow import check_encoder_of_arms

    with pytest.raises(Misuse, match="vit-tiny8 has no T-stream"):
        check_encoders(experiment(tmp_path, encoder="vit-tiny8"))
    check_encoders(experiment(tmp_path, encoder="vit-tiny8", t_stream=False))
    with pytest.raises(Misuse, match="vit-tiny8 has no T-stream"):
        check_encoder_of_arms(RegimeChoice(encoder="vit-tiny8"), Grid.of(ArmChoice()))
    check_encoder_of_arms(
        RegimeChoice(encoder="vit-tiny8"), Grid.of(ArmChoice(arms=("random", "vit")))
    )


def test_views_that_a_recipe_keeps_are_kept_by_a_protocol() -> None:
    """Colours are all that CMC learns from, and patches have sides of their own."""
    quick = {"warmup": 1, "size": 48, "t_stream": False, "encoder": "resnet18-small-half"}
    (view,) = recipe_inputs("cmc", PHOTOS, NOTHING, **quick)["views"]
    assert (view["jitter_p"], view["gray_p"], view["blur_p"]) == (0, 0, 0)
    assert view["scale"] == PHOTOS.views["scale"]
    image, patches = recipe_inputs("pirl", PHOTOS, NOTHING, **quick)["views"]
    assert image["gray_p"] == PHOTOS.views["gray_p"]
    assert (patches["size"], patches["patch"], patches["scale"]) == (55, 14, (0.6, 1))
    assert patches["gray_p"] == 0.2
    beside = recipe_inputs("pirl", PHOTOS, NOTHING, **quick | {"t_stream": True})["views"]
    assert beside == [image, image, patches]


def test_patches_of_a_recipe_are_of_whole_patches_of_a_vit() -> None:
    of_vit = {"warmup": 1, "size": 48, "t_stream": False, "encoder": "vit-tiny8"}
    _, patches = recipe_inputs("pirl", PHOTOS, NOTHING, **of_vit)["views"]
    assert (patches["size"], patches["patch"]) == (55, 16)


def test_cmc_wants_two_encoders(tmp_path: Path) -> None:
    from flows.checks import check_encoders
    from flows.reproduce.flow import check_encoder_of_arms

    with pytest.raises(Misuse, match="such as lab:resnet50 or ydbdr:resnet50, got resnet18"):
        check_encoders(experiment(tmp_path, objectives=("cmc",)))
    check_encoders(experiment(tmp_path, objectives=("cmc",), encoder="lab:resnet18-small-half"))
    grid = Grid.of(ArmChoice(objectives=("cmc",)))
    with pytest.raises(Misuse, match="got resnet18-small-half"):
        check_encoder_of_arms(RegimeChoice(), grid)
    check_encoder_of_arms(RegimeChoice(encoder="ydbdr:resnet18-small"), grid)


def test_a_detector_that_an_encoder_does_not_take_is_told_before_it_is_trained(tmp_path) -> None:
    from flows.checks import check_encoders

    annotated = Detection(voc_train="scenes:0:2", voc_val="scenes:2:2")
    vit = Training(protocol="paper", encoder="vit-tiny8", t_stream=False, size=32)
    asked_for = Experiment(out=str(tmp_path), training=vit, detection=annotated)
    with pytest.raises(
        Misuse, match=r"vit-tiny8 has no stages .*; give --detection-head fpn .*--voc-val out"
    ):
        check_encoders(asked_for)
    check_encoders(replace(asked_for, detection=replace(annotated, detection_head="fpn")))
    # whoever is judged beside a ResNet is detected with, too
    beside = replace(
        asked_for,
        training=Training(protocol="paper"),
        judging=Judging(baselines=["random:resnet18", "random:lab:resnet18-small-half"]),
    )
    with pytest.raises(Misuse, match="random:lab:resnet18-small-half has no stages"):
        check_encoders(beside)
    # protocols with a pyramid take any
    check_encoders(replace(asked_for, training=replace(vit, protocol="quick")))


def test_a_head_that_is_asked_for_is_that_of_every_detector(tmp_path: Path) -> None:
    lists = {"voc_train": "scenes:0:2", "voc_val": "scenes:2:2"}
    paper = Training(protocol="paper")
    asked_for = Experiment(out=str(tmp_path), training=paper, detection=Detection(**lists))
    heads = {pair: asked_for.detector(pair)["head"] for pair in asked_for.annotated_pairs}
    assert heads == {"voc": "c4", "coco": "fpn"}
    pyramids = replace(asked_for, detection=Detection(**lists, detection_head="fpn"))
    assert pyramids.detector("voc") == asked_for.detector("voc") | {"head": "fpn"}
    assert pyramids.detector("coco") == asked_for.detector("coco")


def test_small_crops_are_those_of_the_trainings_that_learn_from_them(tmp_path: Path) -> None:
    asked_for = experiment(tmp_path, objectives=("byol", "swav", "moco-v2"), small_crops=4)
    stages = {stage.name: stage.inputs for stage in training_stages(asked_for, FACTS)}
    without = experiment(tmp_path, objectives=("byol", "swav", "moco-v2"))
    plain = {stage.name: stage.inputs for stage in training_stages(without, FACTS)}
    changed = [name for name in stages if stages[name] != plain[name]]
    assert changed == ["pretrain-swav-alone", "pretrain-swav"]
    *large, _, _, _, last = stages["pretrain-swav"]["views"]
    assert large == plain["pretrain-swav"]["views"]
    # the protocol's crops are of the large views alone
    assert (last["size"], last["scale"]) == (round(96 * 48 / 224), (0.05, 0.14))
    assert last["jitter"] == QUICK.views["jitter"]


def test_small_crops_that_nobody_learns_from_are_refused(tmp_path: Path) -> None:
    from flows.reproduce.flow import checked_grid
    from flows.reproduce.regime import FewLabels, Judging

    with pytest.raises(Misuse, match="small crops are swav's, byol, simclr do not learn from them"):
        experiment(tmp_path, objectives=("byol", "simclr"), small_crops=2)
    assert experiment(tmp_path, small_crops=0).training.small_crops == 0
    choice = RegimeChoice(small_crops=2)
    with pytest.raises(Misuse, match="small crops are swav's, byol does not"):
        checked_grid(ArmChoice(), choice, FewLabels(), Judging())
    checked_grid(ArmChoice(objectives=("swav",)), choice, FewLabels(), Judging())
    assert choice.over(QUICK) == QUICK


def test_an_optimizer_without_its_library_is_told_before_anything_is_done(
    tmp_path, monkeypatch
) -> None:
    from flows.checks import check_encoders
    from flows.reproduce.flow import check_encoder_of_arms

    monkeypatch.setitem(sys.modules, "timm.optim.lars", None)
    for training in ({"optimizer": "lars"}, {"objectives": ("byol", "simclr")}):
        with pytest.raises(CareError, match="timm's, which is not installed"):
            check_encoders(experiment(tmp_path, **training))
    with pytest.raises(CareError, match="timm's, which is not installed"):
        check_encoder_of_arms(RegimeChoice(optimizer="larc"), Grid.of(ArmChoice()))
    with pytest.raises(CareError, match="timm's, which is not installed"):
        check_encoder_of_arms(RegimeChoice(), Grid.of(ArmChoice(objectives=("swav",))))
    check_encoders(experiment(tmp_path, objectives=("moco-v2",)))


def test_an_encoder_that_there_is_not_is_told_before_a_grid() -> None:
    from flows.reproduce.flow import check_encoder_of_arms

    with pytest.raises(CareError, match="no encoder is called 'resnet51'"):
        check_encoder_of_arms(RegimeChoice(encoder="resnet51"), Grid.of(ArmChoice()))
