"""Settings that differ are told together, in the words by which a user can change them."""

import pytest
from care import CareError
from care.train import checkpoint
from care.train.settings import (
    PRETRAINING_SETTINGS,
    OtherSettings,
    allowed_settings,
    refuse_other_settings,
)
from shards.errors import Misuse

BEFORE = {"data": "0123456789abcdef" * 4, "lr": 0.05, "steps": 16, "warmup": 2, "size": 32}
NOW = BEFORE | {"data": "f" * 64, "lr": 0.1, "steps": 8, "warmup": 1}


def test_all_differences_are_in_one_error():
    with pytest.raises(CareError) as refused:
        refuse_other_settings("runs/a", BEFORE, NOW, [])
    assert str(refused.value) == (
        "runs/a was trained with SET 0123456789ab, --epochs for 16 steps, "
        "--warmup-epochs for 2 steps, --lr 0.05; this call has SET ffffffffffff, "
        "--epochs for 8 steps, --warmup-epochs for 1 steps, --lr 0.1; repeat the first call's "
        "settings, allow the change (--allow-change set --allow-change epochs --allow-change lr), "
        "or choose a new run directory"
    )


def test_the_advice_of_a_refusal_works_as_printed():
    with pytest.raises(OtherSettings) as refused:
        refuse_other_settings("runs/a", BEFORE, NOW, [])
    advice = str(refused.value).partition("(")[2].partition(")")[0]
    words = advice.replace("--allow-change ", "").split()
    refuse_other_settings("runs/a", BEFORE, NOW, words)


def test_a_change_that_is_allowed_does_not_hide_another_one():
    with pytest.raises(OtherSettings, match=r"with SET 0123456789ab, --lr 0.05; this call"):
        refuse_other_settings("runs/a", BEFORE, NOW, ["epochs"])


def test_evaluations_which_have_no_such_option_do_not_name_it():
    with pytest.raises(OtherSettings, match=r"trained with lr=0.05; this call has lr=0.1;") as one:
        refuse_other_settings("ev", {"lr": 0.05}, {"lr": 0.1}, None)
    assert "allow" not in str(one.value)


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("epochs", {"steps", "warmup"}),
        ("steps", {"steps"}),
        ("--warmup-epochs", {"warmup"}),
        ("warmup_epochs", {"warmup"}),
        ("batch-size", {"batch_size", "steps", "warmup"}),
        ("hidden", {"objective"}),
        ("SET", {"data"}),
        ("precision", {"precision", "t_precision"}),
        ("init", {"init"}),
    ],
)
def test_what_a_user_calls_a_setting(word, settings):
    assert allowed_settings([word], PRETRAINING_SETTINGS) == settings


@pytest.mark.parametrize("word", ["stepz", "nonsense", "", "nproc", "workers"])
def test_a_word_that_names_no_setting_is_a_usage_error(word):
    with pytest.raises(Misuse, match=f"got '{word}'; there are set, encoder, init, size") as misuse:
        allowed_settings([word], PRETRAINING_SETTINGS)
    assert misuse.value.code == 2


def test_the_settings_of_a_pre_training_are_those_that_one_records(whole):
    recorded = checkpoint.latest(whole).manifest["settings"]
    # recorded where they are not what runs began with before there was a choice
    chosen = {"init", "optimizer", "momentum_rises"}
    assert {*recorded, *chosen} == {*PRETRAINING_SETTINGS}
