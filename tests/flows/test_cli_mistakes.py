"""What is wrong is told in one line, with the exit code for it, and leaves nothing behind."""

import re
from pathlib import Path
import pytest
from flows.exits import exit_on_failure
from shards.errors import Stopped


def one_line(text: str) -> bool:
    """Whether only one line is about an error, whatever progress was shown before."""
    lines = text.strip().splitlines()
    errors = sum("error" in line for line in lines)
    return "Traceback" not in text and errors == 1 and lines[-1].startswith("error: ")


MISTAKES = [
    ("shards build missing set", 1, "nothing of that name"),
    ("shards build empty set", 1, "empty"),
    ("shards build texts set", 1, "no file that ends as images do"),
    ("shards build photos set --no-such", 2, "No such option"),
    ("shards build photos", 2, "DEST"),
    ("shards build photos set --validate hope", 2, "hope"),
    ("shards build photos s3://bucket/set", 1, "cannot "),
    ("shards info photos", 1, "no index.json"),
    ("pretrain photos run", 1, "no index.json; if it is images, build a set of them"),
    ("pretrain photos run", 1, "care shards build photos DEST"),
    ("pretrain nosuch run", 1, "got nothing of that name; check the path"),
    ("pretrain photos run --epochs 0", 2, "epochs"),
    ("pretrain photos run --batch-size 1", 2, "--batch-size"),
    ("evaluate knn nowhere --train photos --val photos", 1, "nowhere does not exist; wanted a run"),
    ("evaluate knn --train a --val b", 2, "ENCODER"),
    ("evaluate knn x --train a --val b --size 8", 2, "--size"),
    ("evaluate linear x --train a --val b --lrs 0.1,fast", 2, "numbers with commas"),
    ("evaluate linear x --train a --val b --nproc 2", 2, "--nproc"),
    ("evaluate knn random:resnet18 --train a --val b --key ema", 2, "target of a run is"),
    ("export random:resnet18-small out --to timm", 1, "3×3 stem of one convolution; export it"),
    ("export nowhere out --to onnx", 1, "nowhere does not exist; wanted a run"),
    ("export random:resnet18 photos --to onnx", 1, "photos is there already; give another"),
    ("export random:resnet18 out", 2, "--to"),
    ("neighbours random:resnet18 photos --out near.jpg", 2, "wanted a file .png"),
    ("evaluate detect x --train photos --val photos", 1, "wanted a COCO JSON or a VOC list"),
    ("results empty", 1, "results.json"),
    ("results nosuch", 1, "nosuch does not exist; wanted a folder of `care evaluate`"),
    ("report empty", 1, "neither results.json nor losses.jsonl"),
    ("report nosuch", 1, "nosuch does not exist; wanted a directory"),
    ("shards verify nosuch", 1, "got nothing of that name; check the path"),
    ("shards verify empty", 1, "got no index.json"),
    ("shards verify empty --json", 1, "got no index.json"),
    ("frobnicate", 2, "No such command"),
    ("pipeline run --out s3://k:hidden@bucket/lab", 1, "wanted an address without secrets"),
    ("pipeline run --images nosuch", 1, "nothing of that name"),
    ("pipeline run --coco-train nosuch --coco-val photos", 2, "nosuch, which does not exist"),
    ("pipeline run --refresh shards", 2, "got shards"),
    ("pipeline run --encoder resnet51", 1, "no encoder is called 'resnet51'; choose one of"),
    ("pipeline run --objective byol,mocco", 2, "cmc, byol-vit, moco-v3-vit; got mocco"),
    ("pipeline run --no-t-stream --no-c-stream", 2, "got --no-c-stream and --no-t-stream"),
    ("pipeline plan --objective cmc", 2, "wanted an encoder such as lab:resnet50"),
    ("pipeline plan --encoder vit-tiny8", 2, "vit-tiny8 has no T-stream"),
    ("pipeline plan --encoder resnet51", 1, "no encoder is called 'resnet51'"),
    ("pipeline serve --objective cmc", 2, "wanted an encoder such as lab:resnet50"),
    ("pipeline deploy --encoder resnet51", 1, "no encoder is called 'resnet51'"),
    ("reproduce --objective mocco", 2, "got mocco"),
    ("pipeline run --steps 0", 2, "--steps"),
    ("pipeline run --jobs -1", 2, "--jobs"),
    ("pipeline run --plain --labels 5", 2, "shares of the labels"),
    ("pipeline run --plain --refresh shards", 2, "got shards"),
    ("pipeline status empty", 1, "without stages"),
]


@pytest.mark.parametrize(("command", "code", "says"), MISTAKES)
def test_mistakes_are_one_clear_message(
    care, photos: Path, tmp_path: Path, monkeypatch, command, code, says
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    got, _, error = care(*command.split())
    assert got == code
    assert says in error
    assert "Traceback" not in error
    assert "hidden" not in error
    assert "engine" not in error
    assert one_line(error) or code == 2
    assert not (tmp_path / "set").exists()


KNN = "evaluate knn --train set --val set"
FEW = "evaluate finetune random:resnet18-small --train set --val set"
DETECT = "evaluate detect random:resnet51"
WITH_A_SET = [
    ("pretrain set run --batch-size 8 --encoder resnet51", 1, "no encoder is called 'resnet51'"),
    (f"{KNN} random:resnet51", 1, "no encoder is called 'resnet51'"),
    (f"{KNN} nowhere", 1, "nowhere does not exist"),
    (
        f"{KNN} random:resnet18-small-half --out s3://k:hidden@bucket/ev",
        1,
        "wanted an address without secrets",
    ),
    (f"{KNN} photos", 1, "holds no checkpoint"),
    (f"{KNN} photos/a/0.png", 1, "is no file of weights"),
    (FEW, 2, "wanted the images to learn from as one of"),
    (f"{FEW} --fraction 2", 2, "wanted a fraction"),
    (f"{FEW} --fraction 1 --head-lrs 1,2,3", 2, "wanted one head rate for each"),
    (f"{FEW} --fraction 0.01", 1, "cannot hold 20% of 2"),
    (f"{FEW} --list none", 1, "cannot read the list none"),
    (f"{DETECT} --train set/index.json --val set", 1, "is no COCO instances file"),
    (f"{DETECT} --train set --val set", 1, "wanted a COCO JSON"),
]


@pytest.mark.parametrize(("command", "code", "says"), WITH_A_SET)
def test_mistakes_with_a_good_set(
    care, photos: Path, tmp_path: Path, monkeypatch, command, code, says
) -> None:
    monkeypatch.chdir(tmp_path)
    care("shards", "build", "photos", "set")
    got, _, error = care(*command.split())
    assert got == code
    assert says in error
    assert one_line(error)
    assert not (tmp_path / "run").exists()


SMALL = "--size 32 --batch-size 8 --hidden 16 --precision fp32 --epochs 1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--batch-size", "1024"], "1024 is more than the 24 images"),
        (["--batch-size", "32"], "leave it out for 4, which suits them"),
        (["--batch-size", "24", "--nproc", "5"], "24 is no multiple of 5 processes × 1 parts"),
        (["--batch-size", "9", "--accumulate", "2"], "9 is no multiple of 1 processes × 2 parts"),
        (["--batch-size", "8", "--knn-every", "1"], "give both or none of them"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    care, photos: Path, tmp_path: Path, options, says
) -> None:
    care("shards", "build", photos, tmp_path / "set")
    code, _, error = care("pretrain", tmp_path / "set", tmp_path / "run", *options)
    assert code == 2
    assert says in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_no_space_left_is_one_line_and_leaves_nothing_whole(
    care, photos: Path, tmp_path: Path, monkeypatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shards.storage.os.fsync", full)
    code, _, error = care("shards", "build", photos, tmp_path / "set")
    assert code == 1
    assert "No space left on device" in error
    assert one_line(error)
    assert not list((tmp_path / "set").glob("*.tar"))
    assert not (tmp_path / "set" / "index.json").exists()


def test_a_damaged_set_is_told_by_verify(care, photos: Path, tmp_path: Path) -> None:
    care("shards", "build", photos, tmp_path / "set")
    tar = next((tmp_path / "set").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    code, out, error = care("shards", "verify", tmp_path / "set")
    assert code == 1
    assert "shard-000000.tar" in out
    assert one_line(error)


def test_other_settings_of_a_run_are_refused(care, photos: Path, tmp_path: Path) -> None:
    small = [
        "--size",
        "32",
        "--batch-size",
        "8",
        "--hidden",
        "16",
        "--precision",
        "fp32",
        "--epochs",
        "1",
    ]
    command = ["pretrain", tmp_path / "set", tmp_path / "run", *small]
    care("shards", "build", photos, tmp_path / "set")
    assert care(*command, "--encoder", "resnet18-small-half")[0] == 0
    # the same command again continues, here: is done
    assert care(*command, "--encoder", "resnet18-small-half")[0] == 0
    code, _, error = care(*command, "--encoder", "resnet18-small-half", "--lr", 1)
    assert code == 1
    assert one_line(error)
    assert "--lr 0.05; this call has --lr 1.0" in error
    code, _, error = care(*command, "--encoder", "resnet18")
    assert code == 1
    assert one_line(error)
    assert "encoder" in error


HELP = ["pretrain", "evaluate finetune", "evaluate detect", "pipeline run", "shards build"]


@pytest.mark.parametrize("command", HELP)
def test_help_is_readable_at_80_columns(care, monkeypatch, command) -> None:
    from test_frozen_options import WANTED

    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = care(*command.split(), "--help")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    for parameter in WANTED[f"care {command}"]["parameters"].values():
        names = [name for name in parameter["names"] if name.startswith("--")]
        assert all(name in text for name in names)
    # what is said to programmers: modules, None, who calls
    leaks = re.findall(r"(?:care|shards|flows)\.[a-z_.]+\b(?<!\.md)|None for|caller|GIL", text)
    assert leaks == []


def test_the_list_of_commands_is_not_cut(care, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ([], ["shards"], ["pipeline"]):
        code, text, _ = care(*group, "--help")
        assert code == 0
        assert not re.search(r"\w\.\.\.$", text, re.MULTILINE)


def test_the_version_is_told(care) -> None:
    code, out, _ = care("--version")
    assert code == 0
    assert re.fullmatch(r"care \S+ · torch \S+ · torchvision \S+\n", out)


ODD_NAMES = ["\x1b[31mred.txt", "two\nlines.txt", "[bold]b.txt", "caf\udce9.txt"]
SHOWN_NAMES = [r"\x1b[31mred.txt", r"two\nlines.txt", "[bold]b.txt", r"caf\xe9.txt"]


@pytest.mark.parametrize("folder", ["photos", "[red]\x1b[31m"])
def test_names_of_files_are_shown_and_command_nothing(
    care, photos: Path, tmp_path: Path, monkeypatch, folder
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ODD_NAMES:
        (photos / "a" / name).write_text("no image")
    photos.rename(folder) if folder != "photos" else None
    code, out, error = care("shards", "build", folder, "set")
    assert code == 0, error
    assert all(name in out for name in SHOWN_NAMES)
    assert "\x1b" not in out + error
    code, _, error = care("shards", "build", f"no{folder}\n", "other")
    assert code == 1
    assert "\x1b" not in error
    assert one_line(error)


def test_an_interrupt_is_a_stop_and_no_failure(care, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.root.sources.find", interrupted)
    code, _, error = care("demo", "--images", "photos")
    assert code == 3
    assert "the same command continues" in error


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("--objective cmc", 2, "wanted an encoder such as lab:resnet50"),
        ("--encoder vit-tiny8", 2, "vit-tiny8 has no T-stream"),
        ("--encoder resnet51", 1, "no encoder is called 'resnet51'"),
        ("--steps 1 --epochs 1", 2, "wanted steps or epochs, got both"),
        ("--labels 5", 2, "wanted shares of the labels"),
        ("--seeds -1", 2, "wanted seeds from 0 on"),
    ],
)
def test_a_grid_that_cannot_be_done_starts_no_engine(
    care, tmp_path: Path, monkeypatch, options: str, code: int, says: str
) -> None:
    from flows.cli import reproduce

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_flow", lambda *_, **__: pytest.fail("it was started"))
    result, _, error = care("reproduce", *options.split())
    assert (result, one_line(error)) == (code, True), error
    assert says in error
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("stopped on request after step 3", "stopped on request after step 3"),
        ("finished work is kept", "stopped: finished work is kept"),
    ],
)
def test_a_stop_is_said_once(message, line, capsys) -> None:
    with pytest.raises(SystemExit) as ending, exit_on_failure():
        raise Stopped(message)
    assert ending.value.code == Stopped.code
    assert capsys.readouterr().err.strip() == line
