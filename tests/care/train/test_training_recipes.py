"""How each objective is trained: as its authors published it, or changed as a user asks."""

import inspect
import json
from dataclasses import asdict, replace
import pytest
from care import PIRL, CareError, c_stream_for
from care.objectives.by_name import OBJECTIVES
from care.train import VIEWS, View, pretrain
from care.train.optimizers import LARC, LARS, OPTIMIZERS, SGD, AdamW, Schedule
from care.train.recipes import (
    RECIPES,
    make_optimizer,
    recipe_for,
    recipe_optimizer,
    recipe_views,
    warmup_of,
)
from care.train.view_checks import check_views
from care.train.views import multi_crop
from care.vit import patch_side

# optimizer, lr for 256 images, weight decay, epochs of warm-up, momentum of the targets
PUBLISHED = {
    "byol": (SGD, 0.05, 1e-4, 10, 0.99),
    "simsiam": (SGD, 0.05, 1e-4, 0, 0.99),
    "simclr": (LARS, 0.3, 1e-6, 10, 0.99),
    "moco-v1": (SGD, 0.03, 1e-4, 0, 0.999),
    "moco-v2": (SGD, 0.03, 1e-4, 0, 0.999),
    "moco-v3": (LARS, 0.6, 1e-6, 10, 0.99),
    "swav": (LARC, 0.3, 1e-6, 10, 0.99),
    "swav-256": (LARC, 0.6, 1e-6, 0, 0.99),
    "barlow-twins": (LARS, 0.2, 1e-6, 10, 0.99),
    "infomin": (SGD, 0.03, 1e-4, 0, 0.999),
    "pirl": (SGD, 0.03, 1e-4, 0, 0.99),  # 0.12 at batch 1,024
    "pirl-pycontrast": (SGD, 0.03, 1e-4, 0, 0.99),
    "cmc": (SGD, 0.06, 1e-4, 0, 0.99),  # 0.03 at batch 128
    "byol-vit": (AdamW, 1e-4, 0.1, 40, 0.99),
    "moco-v3-vit": (AdamW, 1.5e-4, 0.1, 40, 0.99),
}
# least share of the image in a crop, jitter with its probability, probability of the blur
COLOURS = {
    "simsiam": (0.2, (0.4, 0.4, 0.4, 0.1), 0.8, 0.5),
    "simclr": (0.08, (0.8, 0.8, 0.8, 0.2), 0.8, 0.5),
    "moco-v1": (0.2, (0.4, 0.4, 0.4, 0.4), 1, 0),
    "moco-v2": (0.2, (0.4, 0.4, 0.4, 0.1), 0.8, 0.5),
    "swav": (0.14, (0.8, 0.8, 0.8, 0.2), 0.8, 0.5),
}


def test_every_objective_has_the_recipe_of_its_paper():
    assert RECIPES.keys() == OBJECTIVES.keys() == PUBLISHED.keys()
    for name, recipe in RECIPES.items():
        optimizer = recipe.optimizer
        numbers = (optimizer.lr, optimizer.weight_decay, recipe.warmup_epochs, recipe.momentum)
        assert (type(optimizer), *numbers) == PUBLISHED[name], name
        assert recipe.momentum_rises == (name not in ("moco-v1", "moco-v2", "infomin"))
        assert recipe.source


def test_schedules_are_those_of_the_released_code():
    schedules = {name: recipe.optimizer.schedule for name, recipe in RECIPES.items()}
    assert schedules["simsiam"].constant == ("c.predictor",)
    assert schedules["moco-v1"].drops == (0.6, 0.8)  # 120 and 160 of 200 epochs
    # 4.8 at batch 4,096, from 0.3 to 0.0048
    assert schedules["swav"] == Schedule(start=0.3 / 4.8, final=0.0048 / 4.8)
    assert schedules["swav-256"] == Schedule(final=0.0006 / 0.6)
    assert schedules["infomin"].final == 0.001  # PyContrast's cosine ends at three decays
    assert schedules["pirl-pycontrast"].drops == (120 / 200, 160 / 200)
    assert schedules["barlow-twins"].final == 0.001
    assert schedules["pirl"].final == 0.00012 / 0.12
    assert schedules["cmc"].drops == (120 / 240, 160 / 240, 200 / 240)
    plain = [name for name, schedule in schedules.items() if schedule == Schedule()]
    assert plain == [
        "byol",
        "simclr",
        "moco-v2",
        "moco-v3",
        "byol-vit",
        "moco-v3-vit",
    ]
    assert RECIPES["barlow-twins"].optimizer.vector_lr == 0.0048


def test_views_are_those_of_the_papers():
    for name, (least, jitter, jitter_p, blur_p) in COLOURS.items():
        first, second = RECIPES[name].views
        assert first == second
        assert (first.scale, first.jitter, first.jitter_p, first.blur_p) == (
            (least, 1),
            jitter,
            jitter_p,
            blur_p,
        )
        assert (first.gray_p, first.flip_p, first.solarize_p) == (0.2, 0.5, 0)
    assert RECIPES["barlow-twins"].views == VIEWS
    larger = (View(scale=(0.2, 1)), View(scale=(0.2, 1), blur_p=0.1, solarize_p=0.2))
    assert RECIPES["moco-v3"].views == larger


def test_views_of_patches_and_of_one_image():
    views = RECIPES["infomin"].views
    strong = View(scale=(0.2, 1), jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5, augment="rand-augment")
    puzzle = View(scale=(0.6, 1), size=255, patch=64, jitter_p=0, blur_p=0, gray_p=0)
    assert views == (strong, strong, puzzle)
    image = View(jitter=(0.4, 0.4, 0.4, 0.2), jitter_p=1, blur_p=0, augment="photometric")
    assert RECIPES["pirl"].views == (image, image._replace(scale=(0.6, 1), size=255, patch=64))
    image = View(jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1, blur_p=0)
    assert RECIPES["pirl-pycontrast"].views == (image, puzzle)
    assert RECIPES["cmc"].views == (View(scale=(0.2, 1), jitter_p=0, blur_p=0, gray_p=0),)


@pytest.mark.parametrize("size", [224, 64, 48])
def test_sides_of_views_are_in_proportion(size):
    views = recipe_views(RECIPES["infomin"], size=size)
    assert (views[2].size, views[2].patch) == (round(255 * size / 224), round(64 * size / 224))
    assert views[:2] == RECIPES["infomin"].views[:2]
    assert recipe_views(RECIPES["byol"], size=size) == VIEWS


@pytest.mark.parametrize(
    ("encoder", "size", "small", "image", "patch"),
    [
        ("vit-s16", 224, 96, 255, 64),
        ("vit-s8", 96, 40, 109, 24),
        ("vit-s16", 96, 48, 109, 32),
        # of images that are too small for it, the least that there is
        ("vit-tiny8", 32, 16, 36, 8),
        ("vit-s16", 32, 16, 48, 16),
        ("vit-tiny8", 8, 8, 24, 8),
    ],
)
def test_sides_of_views_are_multiples_of_a_vits_patches(encoder, size, small, image, patch):
    multiple = patch_side(encoder)
    *_, crop = recipe_views(RECIPES["swav"], size=size, small_crops=1, multiple=multiple)
    assert crop.size == small
    *_, puzzle = recipe_views(RECIPES["pirl"], size=size, t_stream=False, multiple=multiple)
    assert (puzzle.size, puzzle.patch) == (image, patch)


def test_a_small_vit_takes_the_views_of_a_recipe():
    views = recipe_views(RECIPES["pirl"], size=32, t_stream=False, multiple=8)
    check_views(views, 32, c_stream_for("vit-tiny8", objective=PIRL(hidden=8)), None)


def test_cnns_have_no_patches():
    names = ("resnet50", "timm:resnet18:layer3", "lab:resnet50")
    assert {patch_side(name) for name in names} == {1}


def test_a_t_stream_sees_two_views_of_an_image():
    image, patches = recipe_views(RECIPES["pirl"], size=224, t_stream=False)
    assert recipe_views(RECIPES["pirl"], size=224) == (image, image, patches)
    assert len(recipe_views(RECIPES["cmc"], size=224, t_stream=False)) == 1
    assert len(recipe_views(RECIPES["cmc"], size=224)) == 2


def test_small_crops_are_those_of_the_released_code():
    colours = RECIPES["swav"].views[0]
    assert recipe_views(RECIPES["swav"], size=224, small_crops=6) == multi_crop(colours)
    views = recipe_views(RECIPES["swav"], size=64, small_crops=4)
    assert [view.size for view in views] == [None, None, 27, 27, 27, 27]


def test_swav_of_batch_256_has_six_small_crops_unless_others_are_asked_for():
    recipe = RECIPES["swav-256"]
    assert recipe_views(recipe, size=224) == multi_crop(RECIPES["swav"].views[0])
    assert [view.size for view in recipe_views(recipe, size=64)] == [None, None, *[27] * 6]
    assert len(recipe_views(recipe, size=224, small_crops=2)) == 4
    assert recipe_views(recipe, size=224, small_crops=0) == RECIPES["swav"].views


def test_the_recipe_of_byol_is_what_a_training_does_by_default():
    defaults = inspect.signature(pretrain).parameters
    for name in ("optimizer", "momentum", "momentum_rises", "views"):
        assert getattr(RECIPES["byol"], name) == defaults[name].default


@pytest.mark.parametrize(
    ("name", "epochs", "warmup"),
    [("byol", 200, 10), ("byol", 30, 3), ("simsiam", 30, 0), ("moco-v3-vit", 300, 40)],
)
def test_a_short_run_has_a_short_warm_up(name, epochs, warmup):
    assert warmup_of(RECIPES[name], epochs) == warmup


def test_what_is_asked_for_replaces_the_recipes_numbers():
    barlow = RECIPES["barlow-twins"]
    assert recipe_optimizer(barlow) == barlow.optimizer
    changed = recipe_optimizer(barlow, lr=0.4, weight_decay=0, warmup=7)
    wanted = replace(barlow.optimizer, lr=0.4, vector_lr=0.0096, weight_decay=0, warmup=7)
    assert changed == wanted
    assert recipe_optimizer(RECIPES["moco-v2"], rate_scale=8).lr == pytest.approx(0.24)
    assert recipe_optimizer(RECIPES["moco-v2"], lr=0.1, rate_scale=8).lr == 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_optimizer_has_its_own_numbers_and_the_recipes_schedule(name):
    recipe = RECIPES["moco-v1"]
    chosen = recipe_optimizer(recipe, name)
    defaults = recipe.optimizer if name == "sgd" else OPTIMIZERS[name]()
    assert chosen == replace(defaults, schedule=Schedule(drops=(0.6, 0.8)))


@pytest.mark.parametrize("name", RECIPES)
def test_an_optimizer_comes_back_from_json(name):
    optimizer = recipe_optimizer(RECIPES[name], warmup=3)
    kinds = {kind: key for key, kind in OPTIMIZERS.items()}
    content = {"name": kinds[type(optimizer)], **asdict(optimizer)}
    assert make_optimizer(json.loads(json.dumps(content))) == optimizer


def test_an_optimizer_of_few_words_has_defaults():
    assert make_optimizer({"name": "adamw", "lr": 0.1}) == AdamW(lr=0.1)


def test_an_objective_without_a_recipe_is_told_with_those_that_have_one():
    with pytest.raises(CareError, match=r"of byol, simsiam, .*, moco-v3-vit; got 'mocco'"):
        recipe_for("mocco")
