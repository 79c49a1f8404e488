import json
import statistics
import sys
from pathlib import Path
import pytest
from PIL import Image
from flows.cli import main
from shards import scenes


@pytest.fixture
def care(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line; gives (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["care", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for n in range(24):
        path = tmp_path / "photos" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 20 + 200 * (n % 2)).convert("RGB").save(path)
    return tmp_path / "photos"


def one_line(text: str) -> bool:
    """Whether only one line is about an error, whatever progress was shown before."""
    return (
        "Traceback" not in text
        and sum("error" in line for line in text.splitlines()) == 1
        and text.strip().splitlines()[-1].startswith("error: ")
    )


SMALL = (
    "--encoder",
    "resnet18-small-half",
    "--size",
    32,
    "--batch-size",
    8,
    "--hidden",
    16,
    "--precision",
    "fp32",
)


def test_shards_to_evaluation(care, photos: Path, tmp_path: Path) -> None:
    code, out, _ = care("shards", "build", photos, tmp_path / "set", "--json")
    assert code == 0
    assert json.loads(out)["kept"] == 24
    assert json.loads(out)["classes"] == {"a": 12, "b": 12}
    assert care("shards", "info", tmp_path / "set")[0] == 0
    assert "intact" in care("shards", "verify", tmp_path / "set")[1]
    code, out, error = care("pretrain", tmp_path / "set", tmp_path / "run", *SMALL, "--epochs", 2)
    assert code == 0, error
    assert "6 steps done" in out
    sets, random = (
        ("--train", tmp_path / "set", "--val", tmp_path / "set", "--out", tmp_path / "judged"),
        "random:resnet18-small-half",
    )
    code, out, _ = care("evaluate", "knn", tmp_path / "run", random, *sets, "--size", 32, "--json")
    rows = json.loads(out)
    assert [row["encoder"] for row in rows] == [str(tmp_path / "run"), random]
    assert all(0 <= row["top1"] <= row["top5"] == 100 for row in rows)
    assert rows[0]["digests"]["encoder"] != rows[1]["digests"]["encoder"]
    assert rows[0]["digests"]["train"] == rows[1]["digests"]["val"]
    assert rows[0]["settings"]["size"] == 32
    code, out, _ = care("evaluate", "linear", random, *sets, "--size", 32, "--epochs", 2)
    assert code == 0
    assert "best epoch" in out
    assert (
        "linear on cached features"
        in care("evaluate", "linear", random, *sets, "--size", 32, "--fast", "--lrs", "0.1,1")[1]
    )
    quick = ("--epochs", 1, "--batch-size", 4, "--lrs", 0.1, "--head-lrs", 1)
    code, out, _ = care(
        "evaluate", "finetune", tmp_path / "run", *sets, "--fraction", 0.5, *quick, "--json"
    )
    assert code == 0
    (row,) = json.loads(out)
    assert row["task"] == "50 % of the labels"
    assert row["trials"] == 3
    scores = [
        json.loads(path.read_text())["measures"]["top1"]
        for path in (tmp_path / "judged").glob("stages/finetune-*/seed-*/result.json")
    ]
    assert len(scores) == 3
    assert row["top1"] == pytest.approx(statistics.fmean(scores))
    assert row["top1_std"] == pytest.approx(statistics.stdev(scores))
    draws = [
        json.loads(path.read_text())["resampled"]
        for path in (tmp_path / "judged").glob("stages/finetune-*/seed-*/result.json")
    ]
    means = [statistics.fmean(figures) for figures in zip(*draws, strict=True)]
    assert row["resampled"] == pytest.approx(means, abs=1e-3)
    (tmp_path / "names.txt").write_text("".join(f"{n}.png\n" for n in (*range(12), 99)))
    code, _, error = care(
        "evaluate",
        "finetune",
        random,
        *sets,
        "--size",
        32,
        "--trials",
        1,
        *quick,
        "--list",
        tmp_path / "names.txt",
    )
    assert code == 0
    assert "1 names of" in error
    assert "99.png" in error
    code, out, _ = care(
        "results",
        tmp_path / "judged",
        "--csv",
        tmp_path / "all.csv",
        "--markdown",
        tmp_path / "all.md",
    )
    assert code == 0
    assert "reported by the paper" in out
    assert len((tmp_path / "all.csv").read_text().splitlines()) > 6
    assert "| 50 % of the labels" in (tmp_path / "all.md").read_text()
    code, out, _ = care("report", tmp_path / "run")
    assert Path(out.strip()).read_text().startswith("<!doctype html>")

    # the same command again continues (here: is done); other settings and another architecture are refused
    assert care("pretrain", tmp_path / "set", tmp_path / "run", *SMALL, "--epochs", 2)[0] == 0
    code, _, error = care(
        "pretrain", tmp_path / "set", tmp_path / "run", *SMALL, "--epochs", 2, "--lr", 1
    )
    assert code == 1
    assert one_line(error)
    assert "lr=0.05" in error
    code, _, error = care(
        "pretrain",
        tmp_path / "set",
        tmp_path / "run",
        *SMALL[2:],
        "--encoder",
        "resnet18",
        "--epochs",
        2,
    )
    assert code == 1
    assert one_line(error)
    assert "encoder" in error


DETECTOR = (
    "--head",
    "fpn",
    "--size",
    32,
    "--batch-size",
    4,
    "--channels",
    8,
    "--hidden",
    16,
    "--proposals",
    16,
    "--precision",
    "fp32",
    "--seed",
    1,
)


def test_detection_from_annotations_to_results(care, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes.write("train", count=16, size=40)
    scenes.write("val", count=8, start=16, size=40)
    content = json.loads((tmp_path / "train" / "annotations.json").read_text())
    content["annotations"][0]["bbox"] = [5, 5, 0, 0]
    (tmp_path / "train" / "annotations.json").write_text(json.dumps(content))
    command = (
        "evaluate",
        "detect",
        "random:resnet18-small-half",
        "--train",
        "train",
        "--val",
        "val",
        *DETECTOR,
    )
    code, out, error = care(*command, "--iterations", 3, "--json")
    assert code == 0, error
    assert "1 left out, box without area" in error
    (row,) = json.loads(out)
    assert 0 <= row["ap"] <= row["ap50"] <= 100
    (run,) = (tmp_path / "evaluations" / "stages").glob(
        "detect-random-resnet18-small-half-????????"
    )
    assert json.loads((run / "results.json").read_text())["evaluations"] == [row]
    losses = (run / "seed-1" / "losses.jsonl").read_bytes()
    assert json.loads(care(*command, "--iterations", 3, "--json")[1]) == [
        row
    ]  # done: continues with nothing to do
    assert (run / "seed-1" / "losses.jsonl").read_bytes() == losses
    assert care("report", run / "seed-1")[0] == 0
    assert care(*command, "--iterations", 4)[0] == 0  # other settings are another run
    assert len(list((tmp_path / "evaluations" / "stages").glob("detect-*-????????"))) == 2


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


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["shards", "build", "missing", "set"], 1, "nothing of that name"),
        (["shards", "build", "empty", "set"], 1, "empty"),
        (["shards", "build", "texts", "set"], 1, "files of other kinds"),
        (["shards", "build", "photos", "set", "--no-such"], 2, "No such option"),
        (["shards", "build", "photos"], 2, "DEST"),
        (["shards", "build", "photos", "set", "--validate", "hope"], 2, "hope"),
        (["shards", "build", "photos", "s3://bucket/set"], 1, "cannot "),
        (["shards", "info", "photos"], 1, "no index.json"),
        (["pretrain", "photos", "run"], 1, "wanted a shard set"),
        (["pretrain", "photos", "run", "--epochs", "0"], 2, "epochs"),
        (
            ["evaluate", "knn", "nowhere", "--train", "photos", "--val", "photos"],
            1,
            "wanted a shard set",
        ),
        (["evaluate", "knn", "--train", "a", "--val", "b"], 2, "ENCODER"),
        (["evaluate", "knn", "x", "--train", "a", "--val", "b", "--size", "8"], 2, "--size"),
        (["pretrain", "photos", "run", "--batch-size", "1"], 2, "--batch-size"),
        (
            ["evaluate", "linear", "x", "--train", "a", "--val", "b", "--lrs", "0.1,fast"],
            2,
            "numbers with commas",
        ),
        (["evaluate", "linear", "x", "--train", "a", "--val", "b", "--nproc", "2"], 2, "--nproc"),
        (["results", "empty"], 1, "results.json"),
        (
            ["evaluate", "detect", "x", "--train", "photos", "--val", "photos"],
            1,
            "wanted a COCO JSON or a VOC list",
        ),
        (["report", "empty"], 1, "neither results.json nor losses.jsonl"),
        (["frobnicate"], 2, "No such command"),
        (
            ["pipeline", "run", "--out", "s3://k:hidden@bucket/lab"],
            1,
            "wanted an address without secrets",
        ),
        (["pipeline", "run", "--steps", "0"], 2, "--steps"),
        (["pipeline", "run", "--jobs", "-1"], 2, "--jobs"),
        (["pipeline", "run", "--plain", "--labels", "5"], 2, "shares of the labels"),
        (["pipeline", "run", "--plain", "--refresh", "shards"], 2, "got shards"),
        (["pipeline", "status", "empty"], 1, "without stages"),
    ],
)
def test_mistakes_are_one_clear_message(
    care, photos: Path, tmp_path: Path, monkeypatch, arguments, code, says
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    got, _, error = care(*arguments)
    assert got == code
    assert says in error
    assert "Traceback" not in error
    assert "hidden" not in error
    assert one_line(error) or code == 2
    assert not (tmp_path / "set").exists()


KNN = ("evaluate", "knn", "--train", "set", "--val", "set")
FEW = ("evaluate", "finetune", "random:resnet18-small", "--train", "set", "--val", "set")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["pretrain", "set", "run", "--encoder", "resnet51"], 1, "no encoder is called 'resnet51'"),
        ([*KNN, "random:resnet51"], 1, "no encoder is called 'resnet51'"),
        ([*KNN, "nowhere"], 1, "nowhere does not exist"),
        (
            [*KNN, "random:resnet18-small-half", "--out", "s3://k:hidden@bucket/ev"],
            1,
            "wanted an address without secrets",
        ),
        ([*KNN, "photos"], 1, "holds no checkpoint"),
        ([*KNN, "photos/a/0.png"], 1, "is no file of weights"),
        ([*FEW], 2, "wanted the images to learn from as one of"),
        ([*FEW, "--fraction", "2"], 2, "wanted a fraction"),
        ([*FEW, "--fraction", "1", "--head-lrs", "1,2,3"], 2, "wanted one head rate for each"),
        ([*FEW, "--fraction", "0.01"], 1, "cannot hold 20% of 2"),
        ([*FEW, "--list", "none"], 1, "cannot read the list none"),
        (
            ["evaluate", "detect", "random:resnet51", "--train", "set/index.json", "--val", "set"],
            1,
            "is no COCO instances file",
        ),
        (
            ["evaluate", "detect", "random:resnet51", "--train", "set", "--val", "set"],
            1,
            "wanted a COCO JSON",
        ),
    ],
)
def test_mistakes_with_a_good_set(
    care, photos: Path, tmp_path: Path, monkeypatch, arguments, code, says
) -> None:
    monkeypatch.chdir(tmp_path)
    care("shards", "build", "photos", "set")
    got, _, error = care(*arguments, *(("--batch-size", 8) if arguments[0] == "pretrain" else ()))
    assert got == code
    assert says in error
    assert one_line(error)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_set_is_a_usage_error(care, photos: Path, tmp_path: Path) -> None:
    care("shards", "build", photos, tmp_path / "set")
    code, _, error = care("pretrain", tmp_path / "set", tmp_path / "run")
    assert code == 2
    assert "1024 is more than the 24 images" in error


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


@pytest.mark.parametrize("program", [["care", "pretrain"], ["care.train"]])
def test_processes_get_the_arguments_as_they_were_typed(
    care, photos: Path, tmp_path: Path, monkeypatch, program
) -> None:
    from flows.cli import pretrain as command

    care("shards", "build", photos, tmp_path / "set")
    typed = [
        str(tmp_path / "set"),
        str(tmp_path / "run"),
        *map(str, SMALL),
        "--epochs",
        "2",
        "--nproc",
        "2",
    ]
    started = []
    monkeypatch.setattr(command, "torchrun", lambda *arguments, module: started.append(arguments))
    monkeypatch.setattr(sys, "argv", [*program, *typed])
    with pytest.raises(SystemExit) as stop:
        main() if program[1:] else command.app()
    assert stop.value.code == 0
    assert started == [(str(tmp_path / "run"), 2, typed)]


def test_an_interrupt_is_a_stop_and_no_failure(care, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.root.sources.find", interrupted)
    code, _, error = care("demo", "--images", "photos")
    assert code == 3
    assert "the same command continues" in error
