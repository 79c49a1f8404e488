"""The arms of `care reproduce`, and the images and the regime that all runs share."""

from pathlib import Path
from typing import get_args, get_type_hints
import pytest
from PIL import Image
import shards
from care import AbsolutePosition, NoPosition, SinCosPosition, streams_for
from care.objectives.by_name import OBJECTIVES, objective_for
from flows.reproduce.arms import ARMS, GROUPS, Arm, chosen_arms
from flows.reproduce.images import folder_images, label_counts, scene_images
from flows.reproduce.regime import FewLabels, Judging, RegimeChoice, regime_for
from flows.reproduce.runs import Run, reference_arm
from flows.works.training import POSITIONS
from shards.errors import Misuse, ShardError


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.t_stream])
def test_every_arm_is_a_network(name: str) -> None:
    arm = ARMS[name]
    base = "lab:resnet18-small-half" if arm.objective == "cmc" else "resnet18-small-half"
    _, t = streams_for(
        arm.encoder(base),
        size=64,
        blocks=arm.blocks,
        position=POSITIONS[arm.position],
        zero_gamma=arm.zero_gamma,
        detach=arm.detach,
        objective=objective_for(arm.objective, hidden=8, images=64, batch_size=8),
    )
    blocks = t.backbone.online.blocks
    assert len(blocks) == arm.blocks
    kinds = {"none": NoPosition, "sin-cos": SinCosPosition, "absolute": AbsolutePosition}
    assert type(blocks[0].attention.position) is kinds.get(arm.position, POSITIONS["relative"])
    assert bool(blocks[0].expand[-1].weight.any()) != arm.zero_gamma
    assert t.detach == arm.detach


def test_what_an_arm_may_have_is_what_the_work_knows() -> None:
    kinds = get_type_hints(Arm)
    assert set(get_args(kinds["position"])) == POSITIONS.keys()
    assert set(get_args(kinds["objective"])) == OBJECTIVES.keys()


def test_arms_say_only_what_sets_them_apart() -> None:
    care_inputs = ARMS["care"].stage_inputs()
    assert care_inputs == {"t_stream": True, "attention_weight": 100}
    assert ARMS["c-stream"].stage_inputs() == {"t_stream": False, "attention_weight": 0}
    changed = {name: arm.stage_inputs().items() - care_inputs.items() for name, arm in ARMS.items()}
    assert changed["released"] == {("position", "absolute"), ("zero_gamma", False)}
    assert changed["blocks-3"] == {("blocks", 3)}
    assert ARMS["tap-layer2"].encoder("resnet50") == "resnet50:layer2"
    assert ARMS["care"].encoder("resnet50") == "resnet50"


def test_each_arm_once_in_the_order_that_was_asked() -> None:
    assert [arm.name for arm in chosen_arms(["care", "random", "care"])] == ["care", "random"]
    assert Run(ARMS["care"], 3).name == "care-seed-3"


def test_a_group_is_its_arms_in_the_order_of_the_papers_table() -> None:
    names = [arm.name for arm in chosen_arms(["lambda", "c-stream", "lambda-1"])]
    assert names == ["lambda-0", "lambda-1", "lambda-10", "care", "lambda-250", "c-stream"]
    assert [arm.blocks for arm in chosen_arms(["blocks"])] == [2, 3, 4, 5, 6]
    assert {arm.name for arms in GROUPS.values() for arm in arms} == {*ARMS}
    assert not {*GROUPS} & {*ARMS}
    with pytest.raises(Misuse, match="did you mean positions"):
        chosen_arms(["position"])


def test_the_reference_is_the_c_stream_or_care_or_the_first() -> None:
    assert reference_arm(None, chosen_arms(["care", "c-stream"])) == "c-stream"
    assert reference_arm(None, chosen_arms(["lambda"])) == "care"
    assert reference_arm(None, chosen_arms(["blocks-2", "blocks-3"])) == "blocks-2"
    assert reference_arm("random", chosen_arms(["main"])) == "random"


def test_every_objective_is_an_arm_alone_and_beside_the_t_stream() -> None:
    others = [name for name in OBJECTIVES if name != "byol" and not name.endswith("-vit")]
    for name in ("cmc", "swav-256", "pirl-pycontrast"):
        others.remove(name)  # of which groups of their own have the arms
    for name in others:
        alone, beside = ARMS[f"objective-{name}-alone"], ARMS[f"objective-{name}"]
        assert alone.stage_inputs() == {
            "t_stream": False,
            "attention_weight": 0,
            "objective": name,
        }
        assert beside.stage_inputs() == {
            "t_stream": True,
            "attention_weight": 100,
            "objective": name,
        }
    assert len(GROUPS["objectives"]) == 2 * len(others) + 2


def test_the_sequential_design_is_one_stream() -> None:
    inputs = ARMS["sequential"].stage_inputs()
    assert inputs == {"t_stream": False, "attention_weight": 0, "design": "sequential"}
    assert ARMS["sequential"].encoder("resnet50") == "resnet50:layer4"


def test_epochs_replace_the_protocols_steps_and_a_small_set_its_batch() -> None:
    choice = RegimeChoice(epochs=3, batch_size=64, lr=0.2)
    regime = regime_for(choice, FewLabels(), default_protocol="quick", images=200)
    assert (regime.steps, regime.batch_size, regime.lr) == (9, 64, 0.2)
    assert regime_for(choice, FewLabels(), default_protocol="quick", images=40).batch_size == 40
    quick = regime_for(RegimeChoice(), FewLabels(), default_protocol="quick", images=2000)
    photos = regime_for(
        RegimeChoice(protocol="photos"), FewLabels(), default_protocol="quick", images=2000
    )
    assert (quick.steps, photos.steps) == (250, 2000)
    assert quick.arm_steps(ARMS["care"], 1.3) == 325
    assert quick.arm_steps(ARMS["random"], 1) == 0


def test_photographs_have_no_masks_to_be_judged_by() -> None:
    judging = Judging(("knn", "finetune", "attention"))
    photographs = {"has_masks": False, "has_few_labels": True}
    assert judging.possible(**photographs) == ("knn", "finetune")
    assert judging.possible(has_masks=True, has_few_labels=False) == ("knn", "attention")
    with pytest.raises(Misuse, match="such as knn or linear; got attention"):
        Judging(("attention",)).possible(**photographs)


def test_the_papers_protocol_tunes_as_its_recipe_says() -> None:
    choice = RegimeChoice(protocol="paper", steps=100)
    regime = regime_for(choice, FewLabels((0.01,), 7), default_protocol="quick", images=2000)
    assert regime.finetune_steps is None
    assert "epochs" not in regime.tuning(0.01, 20)
    assert regime.training(ARMS["care"], 0, 100)["warmup"] == 5


def test_a_screen_leaves_val_untouched(tmp_path: Path) -> None:
    data = scene_images(100, 40, 0.2)
    assert data.parts == {"train": {"source": "scenes:0+80"}, "val": {"source": "scenes:80+20"}}
    assert data.scenes == range(80, 100)
    assert scene_images(100, 40, 0).scenes == range(100, 140)
    for part in ("train/x", "train/y", "val/x", "val/y"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / part / "1.png")
    photos = str(tmp_path / "photos")
    parts = folder_images(photos, None, 0.25, str(tmp_path / "out")).parts
    train = f"{photos}/train"
    assert parts["train"] == {"source": train, "share": [0, 0.75]}
    assert parts["val"] == {"source": train, "share": [0.75, 1]}
    with pytest.raises(Misuse, match="another folder for results"):
        folder_images(photos, None, 0, f"{photos}/lab")


def test_classes_are_those_of_equal_names_in_whatever_order(tmp_path) -> None:
    for part, names in (("train", "xyz"), ("val", "zx")):
        for name in names:
            path = tmp_path / part / name / "1.png"
            path.parent.mkdir(parents=True)
            Image.effect_noise((8, 8), 50).convert("RGB").save(path)
        shards.build(tmp_path / part, tmp_path / "sets" / part)
    sets = {part: {"url": str(tmp_path / "sets" / part)} for part in ("train", "val")}
    assert label_counts(sets, (1,)) == {1: 3}


def test_shares_of_too_few_labels_and_other_classes_are_told_before_training(tmp_path) -> None:
    for name in ("train/x/1", "train/x/2", "train/y/1", "train/y/2", "val/x/1", "val/z/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 50).convert("RGB").save(path)
    for part in ("train", "val"):
        shards.build(tmp_path / part, tmp_path / "sets" / part)
    sets = {part: {"url": str(tmp_path / "sets" / part)} for part in ("train", "val")}
    assert label_counts(sets | {"val": sets["train"]}, (0.01, 0.5, 1)) == {1: 4}
    with pytest.raises(ShardError, match="among those to train on, got others: z"):
        label_counts(sets, (0.5,))
