"""The stages that the pipeline declares, none of which is started here; the plan and the status."""

import json
import os
from pathlib import Path
import pytest
from PIL import Image
from care import CareError
from flows import graph, records
from flows.checks import check_encoders
from flows.evaluations import EVALUATIONS, EvaluationKind, on_labels
from flows.experiment import Detection, Experiment, Images, Judging, Scenes, Training
from flows.facts import Facts, label_counts
from flows.graph import data_stages, encoders, judging_stages, planned_stages, training_stages
from flows.intentions import Intentions
from flows.plan import experiment_of_options, plan, plan_of_options
from flows.protocols import PAPER, PHOTOS, QUICK
from flows.stages import Needs, Stage
from flows.status import stage_states
from shards import build, scenes, storage
from shards.errors import Misuse

FACTS = Facts(images=2000, label_counts={0.01: 20, 0.1: 200})


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Four images of two classes, which the checks of an experiment find."""
    for number in range(4):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return str(tmp_path / "photos")


def by_name(stages: list[Stage]) -> dict[str, Stage]:
    named = {stage.name: stage for stage in stages}
    assert len(named) == len(stages)
    return named


def test_scenes_are_built_trained_and_judged_by_everything(tmp_path: Path) -> None:
    experiment = Experiment(out=str(tmp_path), scenes=Scenes(50, 20), seed=3)
    data = by_name(data_stages(experiment))
    assert [*data] == ["train", "val", "coco-train", "coco-val"]
    assert data["train"].inputs == {"source": "scenes:0+50", "seed": 3}
    assert data["coco-val"].inputs == {"source": "scenes:50+20", "annotated": True, "seed": 3}
    assert [*by_name(training_stages(experiment, FACTS))] == ["pretrain-c-stream", "pretrain"]
    judged = by_name(judging_stages(experiment, FACTS))
    kinds = ["features", "knn", "linear", "finetune", "finetune", "detect", "segment"]
    kinds += ["quality", "attention"]
    assert [stage.kind for stage in judged.values() if stage.row.get("encoder") == "CARE"] == kinds[
        1:
    ]
    assert next(iter(judged)) == "features-random-initialisation"
    # an ablation is there for comparison: its features are not fine-tuned and find no objects
    of_ablation = [stage.kind for name, stage in judged.items() if name.endswith("-c-stream-alone")]
    assert of_ablation == ["features", "knn", "linear", "quality", "attention"]


def test_attention_is_judged_wherever_there_are_objects(tmp_path: Path) -> None:
    of_scenes = by_name(judging_stages(Experiment(out=str(tmp_path)), FACTS))["attention"]
    assert (of_scenes.work, of_scenes.inputs["verb"]) == ("judge", "attention")
    assert of_scenes.inputs["val"] == Needs("coco-val")
    assert of_scenes.group == "coco"
    scenes.write(tmp_path / "boxed", count=12, size=32)
    build(tmp_path / "boxed", tmp_path / "set")
    place = str(tmp_path / "set")
    two = Detection(voc_train=place, voc_val=place, coco_train=place, coco_val=place)
    experiment = Experiment(
        out=str(tmp_path / "out"), images=Images(str(tmp_path / "boxed")), detection=two
    )
    # sets are used as they are
    assert [*by_name(data_stages(experiment))] == ["train"]
    judged = by_name(judging_stages(experiment, FACTS))
    assert judged["attention-voc"].inputs["val"] == judged["voc"].inputs["train"] == place
    assert judged["attention-coco"].inputs["val"] == place


def test_images_with_boxes_are_judged_by_these_unasked(tmp_path: Path) -> None:
    scenes.write(tmp_path / "boxed", count=12, size=32)
    images = Images(str(tmp_path / "boxed"))
    experiment = Experiment(out=str(tmp_path / "out"), images=images)
    data = by_name(data_stages(experiment))
    assert [*data] == ["train", "coco-train", "coco-val"]
    assert data["coco-val"].inputs["share"] == [0.8, 1]
    judged = by_name(judging_stages(experiment, Facts(images=9, label_counts={})))
    kinds = {stage.kind for stage in judged.values()}
    assert kinds == {"detect", "quality", "attention"}
    build(tmp_path / "boxed", tmp_path / "set")
    images = Images(str(tmp_path / "set"))
    experiment = Experiment(out=str(tmp_path / "out"), images=images)
    judged = by_name(judging_stages(experiment, Facts(images=9, label_counts={})))
    assert {stage.kind for stage in judged.values()} == {"quality", "attention"}
    assert judged["attention"].inputs["val"] == str(tmp_path / "set")


def test_images_without_labels_are_judged_without_them(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (8, 8)).save(flat / "1.png")
    experiment = Experiment(out=str(tmp_path / "out"), images=Images(str(flat)))
    judged = by_name(judging_stages(experiment, Facts(images=100, label_counts={})))
    assert [*judged] == ["quality-random-initialisation", "quality"]
    assert judged["quality"].inputs["val"] == Needs("train")


@pytest.mark.parametrize(("typed", "size"), [("32X64", "32x64"), ("64x64", 64), (64, 64)])
def test_every_stage_has_the_size_in_its_one_form(
    tmp_path: Path, typed: int | str, size: int | str
) -> None:
    experiment = Experiment(out=str(tmp_path), training=Training(size=typed))
    stages = [*training_stages(experiment, FACTS), *judging_stages(experiment, FACTS)]
    dense = ("detect", "segment")  # whose sizes are their own
    sizes = {stage.inputs["size"] for stage in stages if stage.kind not in dense}
    assert sizes == {size}


@pytest.mark.parametrize(
    ("encoder", "bands", "said"),
    [
        ("resnet18-small-rgbn", None, "takes images of 4 bands, got 3"),
        ("resnet18-small-rgbn", (3, 2, 1), "takes images of 4 bands, got 3"),
        (None, (1, 2, 3, 4), "takes images of 3 bands, got 4"),
    ],
)
def test_encoders_of_other_bands_are_refused_before_anything_starts(
    tmp_path: Path, photos: str, encoder: str | None, bands: tuple[int, ...] | None, said: str
) -> None:
    images = Images(images=photos, bands=bands) if bands else Images()
    experiment = Experiment(
        out=str(tmp_path / "out"), images=images, training=Training(encoder=encoder)
    )
    with pytest.raises(CareError, match=said):
        check_encoders(experiment)


def test_detectors_of_four_bands_are_refused_before_anything_starts(
    tmp_path: Path, photos: str
) -> None:
    experiment = Experiment(
        out=str(tmp_path / "out"),
        images=Images(images=photos, bands=(1, 2, 3, 4)),
        training=Training(encoder="resnet18-small-rgbn"),
        judging=Judging(baselines=[]),
        detection=Detection(coco_train=photos, coco_val=photos),
    )
    with pytest.raises(Misuse, match="detectors see red, green and blue"):
        check_encoders(experiment)


def test_what_is_no_size_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="height and width such as 96x192, got 'big'"):
        _ = Experiment(out=str(tmp_path), training=Training(size="big"))


def test_every_stage_comes_after_what_it_needs(tmp_path: Path) -> None:
    seen = set[str]()
    for stage in planned_stages(Experiment(out=str(tmp_path)), FACTS):
        assert stage.needs() <= seen
        assert stage.kind in graph.KINDS
        seen.add(stage.name)
    assert stage.needs() == seen - {"report"}


def test_a_new_evaluation_is_a_line_in_the_table(tmp_path: Path, monkeypatch) -> None:
    lines = (
        *EVALUATIONS,
        EvaluationKind("centroid", "centroid", on_labels, rank=4, on_features=True),
    )
    monkeypatch.setattr(graph, "EVALUATIONS", lines)
    judged = by_name(judging_stages(Experiment(out=str(tmp_path)), FACTS))
    for tag in ("", "-c-stream-alone", "-random-initialisation"):
        stage = judged[f"centroid{tag}"]
        assert (stage.kind, stage.work, stage.inputs["verb"]) == ("centroid", "judge", "centroid")
        assert stage.inputs["cache"] == Needs(f"features{tag}")


def test_the_longest_are_started_first_and_features_before_all(tmp_path: Path) -> None:
    judged = judging_stages(Experiment(out=str(tmp_path)), FACTS)
    kinds = [stage.kind for stage in sorted(judged, key=lambda stage: stage.rank)]
    wanted = ["features", "detect", "finetune", "segment", "linear", "knn", "quality", "attention"]
    assert list(dict.fromkeys(kinds)) == wanted


def test_encoders_have_roles_and_their_own_names(photos: str, tmp_path: Path) -> None:
    small = "random:resnet18-small-half"
    asked_for = Judging(baselines=[small, "supervised:resnet50", small])
    experiment = Experiment(out=str(tmp_path / "out"), images=Images(photos), judging=asked_for)
    assert [(encoder.name, encoder.role, encoder.tag) for encoder in encoders(experiment)] == [
        ("random initialisation", "baseline", "-random-initialisation"),
        ("supervised:resnet50", "baseline", "-supervised-resnet50"),
        ("CARE", "care", ""),
    ]
    judged = by_name(judging_stages(experiment, FACTS))
    assert judged["knn"].inputs["encoder"] == Needs("pretrain", "encoder.safetensors")
    assert judged["knn"].inputs["cache"] == Needs("features")
    assert judged["knn-supervised-resnet50"].inputs["encoder"] == "supervised:resnet50"


def test_initial_weights_are_an_input_of_each_training_where_they_are_asked_for(tmp_path) -> None:
    def inits(**changes) -> list[str | None]:
        experiment = Experiment(out=str(tmp_path), training=Training(**changes))
        stages = training_stages(experiment, FACTS)
        assert len(stages) == 2
        return [stage.inputs.get("init") for stage in stages]

    assert inits(init="supervised:resnet18") == ["supervised:resnet18"] * 2
    assert inits() == [None, None]
    experiment = Experiment(out=str(tmp_path))
    assert all("init" not in stage.inputs for stage in training_stages(experiment, FACTS))


@pytest.mark.parametrize(
    ("training", "judging", "says"),
    [
        (Training(init="nowhere.pth"), Judging(), "nowhere.pth does not exist"),
        (Training(encoder="resnet51"), Judging(), "no encoder is called 'resnet51'"),
        (Training(), Judging(baselines=["runs/none"]), "runs/none does not exist"),
    ],
)
def test_encoders_that_cannot_be_had_are_told_before_anything_is_done(
    tmp_path, monkeypatch, training, judging, says
) -> None:
    from flows.checks import check_encoders

    monkeypatch.chdir(tmp_path)
    with pytest.raises(CareError, match=says):
        check_encoders(Experiment(out="out", training=training, judging=judging))


@pytest.mark.parametrize(
    ("protocol", "of_images"), [(None, PHOTOS), ("quick", QUICK), ("paper", PAPER)]
)
def test_what_is_asked_for_replaces_the_protocol(photos, tmp_path, protocol, of_images) -> None:
    def trained(**changes) -> Experiment:
        training = Training(protocol=protocol, **changes)
        return Experiment(out=str(tmp_path / "out"), images=Images(photos), training=training)

    assert trained().protocol == of_images
    changed = trained(steps=7, lr=0.5, checkpoint_every=3).protocol
    assert (changed.steps, changed.lr, changed.checkpoint_every) == (7, 0.5, 3)
    assert changed.encoder == of_images.encoder


def test_the_papers_protocol_counts_epochs_and_has_no_random_baseline(photos, tmp_path) -> None:
    experiment = Experiment(
        out=str(tmp_path / "out"), images=Images(photos), training=Training(protocol="paper")
    )
    settings = graph.training_settings(experiment, Facts(images=10_000, label_counts={}))
    assert (settings.steps, settings.batch_size, settings.warmup) == (200 * 9, 1024, 90)
    assert graph.training_settings(experiment, Facts(images=100, label_counts={})).batch_size == 100
    assert [encoder.name for encoder in encoders(experiment)] == ["CARE"]
    (finetune,) = [
        s
        for s in judging_stages(experiment, Facts(99, {0.5: 50}))
        if s.group == "" and s.kind == "finetune"
    ]
    assert "epochs" not in finetune.inputs
    assert finetune.inputs["recipe"] == "byol"


def test_detectors_differ_by_data_set_and_by_what_is_asked_for(photos, tmp_path) -> None:
    lists = [tmp_path / name for name in ("train.txt", "val.txt", "train.json", "val.json")]
    for path in lists:
        path.touch()
    pairs = Detection(*map(str, lists), detection_size=300, detection_iterations=9)
    experiment = Experiment(
        out=str(tmp_path / "out"),
        images=Images(photos),
        training=Training(protocol="paper"),
        detection=pairs,
    )
    assert experiment.detector("voc") == {"head": "c4", "size": 300, "iterations": 9}
    assert experiment.detector("coco") == {
        "head": "fpn",
        "mask": True,
        "size": 300,
        "iterations": 9,
    }
    judged = by_name(judging_stages(experiment, FACTS))
    assert judged["voc"].inputs["train"] == Needs("voc-train")
    assert judged["voc"].is_named_in(["voc"])
    assert judged["voc"].is_named_in(["detect"])
    assert not judged["voc"].is_named_in(["coco", "voc-train"])


def test_pixels_are_classified_on_the_scenes_or_on_what_is_asked_for(photos, tmp_path) -> None:
    out = str(tmp_path / "out")
    of_scenes = by_name(judging_stages(Experiment(out=out), FACTS))
    assert of_scenes["segment"].inputs["train"] == Needs("coco-train")
    assert of_scenes["segment"].inputs["val"] == Needs("coco-val")
    assert of_scenes["segment"].inputs["iterations"] == QUICK.evaluations["segment"]["iterations"]
    images = Images(photos)
    assert "segment" not in by_name(judging_stages(Experiment(out=out, images=images), FACTS))
    pair = Detection(segment_train=photos, segment_val=photos, segment_iterations=9)
    experiment = Experiment(out=out, images=images, detection=pair)
    inputs = by_name(judging_stages(experiment, FACTS))["segment"].inputs
    assert (inputs["train"], inputs["val"], inputs["iterations"]) == (photos, photos, 9)
    with pytest.raises(Misuse, match="to train on and to score, got only"):
        Experiment(out=out, detection=Detection(segment_val=photos))
    # masks of the user's own COCO lists are not taken for such without being asked
    coco = Detection(coco_train=photos, coco_val=photos)
    assert "segment" not in by_name(judging_stages(Experiment(out=out, detection=coco), FACTS))


def test_only_the_evaluations_that_are_asked_for_are_done(tmp_path: Path) -> None:
    def kinds(*names: str) -> set[str]:
        asked_for = Experiment(out=str(tmp_path), judging=Judging(evaluate=names))
        graph.check_evaluations(asked_for)
        return {stage.kind for stage in judging_stages(asked_for, FACTS)}

    assert kinds("segment") == {"segment"}
    assert kinds("knn", "segment") == {"features", "knn", "segment"}
    for names, inputs in ((("knn",), {"cache"}), (("segment",), {"segmented"})):
        experiment = Experiment(out=str(tmp_path), judging=Judging(evaluate=names))
        judged = judging_stages(experiment, FACTS)
        results = {stage.name: {"text": "", "rows": []} for stage in judged}
        results |= {name: {"text": ""} for name in ("train", "val", "coco-train", "coco-val")}
        results |= {"segment": {"text": "", "outputs": {"seed-0/segmentation.png": {}}}}
        trained = {"text": "", "losses": {}, "digest": "0"}
        results |= dict.fromkeys(("pretrain", "pretrain-c-stream"), trained)
        page = graph.report_stage(experiment, FACTS, results, judged)
        assert page.inputs.keys() & {"cache", "segmented"} == inputs
        # a page needs no stage that is not done
        assert page.needs() <= results.keys()
    with pytest.raises(Misuse, match=r"wanted evaluations of knn, .*segment.*; got knm"):
        kinds("knn", "knm")
    with pytest.raises(Misuse, match="got none"):
        kinds()


def test_shares_of_too_few_images_are_left_out_aloud() -> None:
    facts = Facts(20, {0.01: 2, 0.5: 10})
    assert facts.tuned_shares == {0.5: 10}
    assert facts.skipped == ["1 % of the labels: that is 2 images, too few to hold one out"]


def test_a_share_that_is_the_same_images_as_a_smaller_one_is_left_out_aloud() -> None:
    facts = Facts(30, {0.1: 3, 0.01: 3, 0.5: 15})
    assert facts.tuned_shares == {0.01: 3, 0.5: 15}
    assert facts.skipped == ["10 % of the labels: these are the same 3 images as 1 %"]


def test_before_the_sets_are_built_every_share_is_supposed_to_suffice(tmp_path: Path) -> None:
    experiment = Experiment(out=str(tmp_path), judging=Judging(labels=(0.1, 0.01)))
    assert {*Facts.before(experiment).tuned_shares} == {0.1, 0.01}


def test_each_class_has_its_share_and_one_image_at_least() -> None:
    labels = [0] * 10 + [1] * 31
    assert label_counts(labels, (0.01, 0.1, 1)) == {0.01: 2, 0.1: 1 + 3, 1: 41}


def test_what_cannot_be_done_is_refused_before_anything_starts(photos, tmp_path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(Misuse, match=r"above 0 and up to 1, got 1\.5"):
        Experiment(out=out, judging=Judging(labels=(0.5, 1.5)))
    with pytest.raises(Misuse, match=r"got only c\.json; give both or none"):
        Experiment(out=out, detection=Detection(coco_val="c.json"))
    with pytest.raises(Misuse, match=r"got c\.json, which does not exist"):
        Experiment(out=out, detection=Detection(coco_train="c.json", coco_val=photos))
    with pytest.raises(Misuse, match="they would become images, too"):
        Experiment(out=f"{photos}/lab", images=Images(photos))
    with pytest.raises(Misuse, match="got shards"):
        graph.check_refresh(["knn", "shards"])


def test_refresh_takes_kinds_and_the_names_of_sets_and_detectors() -> None:
    earlier = "train val voc-train voc-val coco-train coco-val pretrain features knn linear"
    graph.check_refresh([*earlier.split(), "finetune", "voc", "coco", "attention", "report"])
    graph.check_refresh(["build", *(line.kind for line in EVALUATIONS)])


def test_inputs_are_json_with_numbers_in_one_form() -> None:
    stage = Stage("knn", "knn", "judge", {"a": 1.0, "b": [2.5, 3.0], "c": Needs("x", "f")})
    result = {"url": "s/x", "digest": "d", "seen": 4}
    resolved = stage.resolved({"x": result}.__getitem__)
    assert resolved == {"a": 1, "b": [2.5, 3], "c": result | {"url": "s/x/f"}}
    assert isinstance(resolved["a"], int)


# what would run, and what is to come


def commit(stage: Stage, out: str, results: dict[str, dict]) -> None:
    """Leave the record of a stage as if it were finished."""
    keyed = records.key_stage(out, stage.name, stage.work, stage.resolved(results.__getitem__))
    result = {"text": f"{stage.name} is done", "digest": storage.digest(stage.name)}
    storage.write_json(f"{keyed.url}.json", {"key": keyed.key, "result": result})
    results[stage.name] = result | {"url": keyed.url}


def test_the_plan_says_what_would_run_and_what_is_cached(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    experiment = Experiment(out=out, training=Training(c_stream=False), judging=Judging([], ()))
    lines = {line.stage: line for line in plan(experiment)}
    (train,) = [line for name, line in lines.items() if name.startswith("train-")]
    assert (train.kind, train.state) == ("build", "to run")
    assert (lines["pretrain"].state, lines["pretrain"].why) == ("to run", "after train")
    assert lines["knn"].why == "after pretrain and 2 more"
    assert not Path(out).exists()  # nothing was done

    results = dict[str, dict]()
    coco = data_stages(experiment)[2]
    commit(coco, out, results)
    storage.write_bytes(f"{out}/stages/{plan_name(experiment, 'coco-val')}/part", b"x")
    lines = {line.stage.rpartition("-")[0]: line for line in plan(experiment)}
    assert (lines["coco-train"].state, lines["coco-train"].why) == ("cached", "coco-train is done")
    assert lines["coco-val"].state == "to continue"
    (again,) = [line for line in plan(experiment, ["coco-train"]) if "coco-train-" in line.stage]
    assert (again.state, again.why) == ("to run", "it is to be done again")


def plan_name(experiment: Experiment, name: str) -> str:
    (line,) = [line.stage for line in plan(experiment) if line.stage.startswith(f"{name}-")]
    return line


def test_the_plan_says_what_is_left_out_and_why(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    experiment = Experiment(out=str(tmp_path.parent / "out"), images=Images(str(tmp_path)))
    left_out = [line for line in plan(experiment) if line.state == "left out"]
    assert [(line.stage, line.why) for line in left_out] == [
        (
            "kNN, linear and few-label evaluation",
            "the images have no labels (no class folders)",
        ),
        ("detection and attention", "the images have no boxes"),
    ]


def test_every_build_has_the_options_of_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    options = {"out": str(tmp_path.parent / "out"), "images": str(tmp_path)}
    plain, changed = (
        data_stages(experiment_of_options(options | of_pixels))
        for of_pixels in ({}, {"value_range": "0,99", "bands": (3, 2, 1), "alpha": "drop"})
    )
    assert not {"value_range", "bands", "alpha"} & plain[0].inputs.keys()
    pixels = {name: changed[0].inputs[name] for name in ("value_range", "bands", "alpha")}
    assert pixels == {"value_range": "0,99", "bands": [3, 2, 1], "alpha": "drop"}


def test_the_plan_takes_the_options_of_a_run(tmp_path: Path) -> None:
    options = {"out": str(tmp_path), "train_scenes": 50, "val_scenes": 20, "labels": (0.5,)}
    lines = plan_of_options(options | {"jobs": 2, "refresh": None, "protocol": None})
    experiment = Experiment(
        out=str(tmp_path), scenes=Scenes(50, 20), judging=Judging(labels=(0.5,))
    )
    assert lines == plan(experiment)
    with pytest.raises(Misuse, match="got shards"):
        plan_of_options(options | {"refresh": ["shards"]})


def test_status_knows_what_is_to_come(tmp_path: Path) -> None:
    out, results = str(tmp_path), dict[str, dict]()
    train, val = data_stages(Experiment(out=out))[:2]
    intentions = Intentions(out)
    intentions.announce([train.name, val.name, "pretrain"])
    states = [(state.stage, state.state) for state in stage_states(out)]
    assert states == [("train", "to come"), ("val", "to come"), ("pretrain", "to come")]
    commit(train, out, results)
    folder = Path(results["train"]["url"]).name
    intentions.begin("train", folder)
    intentions.begin("val", "val-12345678")
    states = [(state.stage, state.state) for state in stage_states(out)]
    assert states == [(folder, "finished"), ("val-12345678", "to come"), ("pretrain", "to come")]


def test_status_shows_the_last_runs_stages_or_else_the_newest_of_a_name(tmp_path: Path) -> None:
    for number, key in enumerate(("aaaaaaaa", "bbbbbbbb")):
        record = tmp_path / "stages" / f"knn-{key}.json"
        storage.write_json(record, {"result": {"text": key}})
        os.utime(record, (number, number))
    assert [state.text for state in stage_states(str(tmp_path))] == ["bbbbbbbb"]
    intentions = Intentions(str(tmp_path))
    intentions.announce(["knn"])
    intentions.begin("knn", "knn-aaaaaaaa")
    assert [state.text for state in stage_states(str(tmp_path))] == ["aaaaaaaa"]
    both = stage_states(str(tmp_path), everything=True)
    assert [state.text for state in both] == ["aaaaaaaa", "bbbbbbbb"]
    (tmp_path / "stages" / ".intentions.json").write_text(json.dumps({"not": "a list"}))
    assert [state.text for state in stage_states(str(tmp_path))] == ["bbbbbbbb"]


def test_the_page_needs_what_the_main_encoder_was_judged_by(tmp_path: Path) -> None:
    experiment = Experiment(out=str(tmp_path), scenes=Scenes(50, 20))
    judged = judging_stages(experiment, FACTS)
    stages = [*data_stages(experiment), *training_stages(experiment, FACTS), *judged]
    results = {stage.name: {"text": "", "url": stage.name} for stage in stages}
    results["pretrain"] |= {"losses": {}, "digest": "d"}
    pictures = {"seed-0/confusion.csv": {}, "seed-0/segmentation.png": {}}
    results["segment"]["outputs"] = pictures
    page = graph.report_stage(experiment, FACTS, results, judged)
    assert page.inputs["cache"] == Needs("features")
    assert page.inputs["segmented"] == Needs("segment", "seed-0/segmentation.png")
    assert [*page.inputs["sets"]] == ["train", "val", "coco-train", "coco-val"]
    assert page.inputs["pictured"] in page.inputs["sets"]
    # nothing is needed of stages that nobody asked for
    without = [stage for stage in judged if stage.kind not in ("features", "segment")]
    inputs = graph.report_stage(experiment, FACTS, results, without).inputs
    assert not {"cache", "segmented"} & inputs.keys()
