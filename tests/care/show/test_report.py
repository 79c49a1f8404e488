import base64
import json
import shutil
from html.parser import HTMLParser
from importlib import import_module
from io import BytesIO
import fsspec
import numpy as np
import pytest
from PIL import Image
import shards
from care import CareError
from care.show import report

report_room = import_module("care.show.report")

KNN = {"task": "kNN", "protocol": "k = 20 & cosine"}
LINEAR = {"task": "linear", "protocol": "80 epochs"}
RESULTS = {
    "title": "Scenes <b>& co</b>",
    "note": "made from a < b",
    "evaluations": [
        KNN | {"encoder": "trained", "top1": 71.26, "top5": 93.5},
        KNN | {"encoder": "random", "top1": 41.04, "top5": 80.0},
        LINEAR | {"encoder": "trained", "top1": 80.0, "top5": 97.04},
    ],
    "skipped": ["detection: no <boxes>"],
    "stages": [{"name": "pretrain", "text": "150 steps"}],
}


class Page(HTMLParser):
    """Elements with their attributes, and the text of every table cell and heading.

    What can be unfolded, the paper's results, is text of its own.
    """

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self.text, self._inside = [], [], [], None
        self.folded, self._is_folded = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._is_folded = self._is_folded or tag == "details"
        if self._is_folded:
            return
        if tag in ("td", "h1", "figcaption", "p"):
            self.cells.append([tag, dict(attrs).get("class") or "", ""])
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None
        self._is_folded = self._is_folded and tag != "details"

    def handle_data(self, data):
        if self._is_folded:
            self.folded.append(data)
            return
        self.text.append(data)
        if self._inside:
            self.cells[-1][2] += data


def write_losses(run, count=30, **changes):
    lines = []
    for step in range(count):
        row = {
            "step": step,
            "cnn": 4 - step / 30,
            "transformer": 4.0,
            "attention": 0.015,
            "spread": 0.9,
            "total": 9,
            "lr": 0.1,
        }
        lines.append(json.dumps(row | changes))
    (run / "losses.jsonl").write_text("".join(line + "\n" for line in lines))


def write(run, results=RESULTS):
    (run / "results.json").write_text(json.dumps(results))


def read(run):
    text = report(run).read_text()
    return text, Page(text)


def png():
    out = BytesIO()
    Image.new("RGB", (3, 2), "red").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def full(tmp_path):
    write(tmp_path)
    write_losses(tmp_path)
    (tmp_path / "maps.png").write_bytes(png())
    return tmp_path


def test_it_is_one_file_that_loads_nothing(full):
    assert report(str(full)) == full / "report.html"
    text, page = read(full)
    assert text.startswith("<!doctype html>")
    assert not any(address in text for address in ("http://", "https://", "@import", "url("))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed"}
    links = {name for _, attributes in page.elements for name in attributes}
    assert not links & {"href", "srcset"}
    (source,) = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    kind, _, content = source.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == png()


def test_the_numbers_of_the_table_are_there_and_the_best_is_marked(full):
    _, page = read(full)
    cells = [(style, text) for tag, style, text in page.cells if tag == "td"]
    assert [text for _, text in cells] == [
        *("kNN", "trained", "71.3", "93.5"),
        *("", "random", "41.0", "80.0"),
        *("linear", "trained", "80.0", "97.0"),
        *("pretrain", "150 steps"),
    ]
    assert [text for style, text in cells if "best" in style] == ["71.3", "80.0"]


def test_what_results_say_is_text_and_never_markup(full):
    text, page = read(full)
    texts = [text for _, _, text in page.cells]
    assert "Scenes <b>& co</b>" in texts
    assert "made from a < b" in texts
    assert "kNN: k = 20 & cosine" in texts
    assert "Skipped: detection: no <boxes>" in texts
    assert not {tag for tag, _ in page.elements} & {"b", "boxes"}
    assert "Scenes &lt;b&gt;&amp; co&lt;/b&gt;" in text


def test_what_the_paper_reports_is_folded_behind_ours(full):
    text, page = read(full)
    folded = " ".join(page.folded)
    assert "not measured here" in folded
    assert "linear, reported by the paper (ImageNet)" in folded
    assert "CARE, ResNet-50, 400 epochs" in folded
    assert "kNN" not in folded
    assert text.index("</details>") > text.index("71.3")
    write(full, {"evaluations": [KNN | {"encoder": "trained", "top1": 71.26}]})
    assert "<details>" not in read(full)[0]


def test_pictures_and_drawings_are_there_in_words_too(full):
    (full / "neighbours.png").write_bytes(png())
    plane = {"encoder": "trained", "classes": ["a<b"], "explained": [0.5, 0.25]}
    plane |= {"labels": [0, 0, 0], "points": [[0, 0], [1, 0], [0, 2]]}
    (full / "embedding.json").write_text(json.dumps(plane))
    text, page = read(full)
    alts = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert len(alts) == 2
    assert alts[0].endswith("for each encoder: trained, random")
    assert "nearest" in alts[1]
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    for attributes in drawings:
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]
    labels = [attributes.get("aria-label", "") for attributes in drawings]
    assert any("3 images as points" in label and "a<b 3" in label for label in labels)
    assert any("30 steps: 4 at first, 3.03 at last" in label for label in labels)
    assert "a&lt;b&nbsp;(3)" in text
    assert "50.0 and 25.0 % of the variance" in text


def test_maps_that_a_command_has_drawn_have_its_words(full):
    facts = {"caption": "EigenCAM of layer3 <b>", "rows": ["runs/a, EigenCAM", "runs/b, EigenCAM"]}
    (full / "maps.json").write_text(json.dumps(facts | {"images": ["1.jpg"]}))
    _, page = read(full)
    (alt,) = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert alt.endswith("for each encoder: runs/a, EigenCAM, runs/b, EigenCAM")
    texts = [text for tag, _, text in page.cells if tag == "p"]
    assert "EigenCAM of layer3 <b>" in texts
    assert not any("Grad-CAM" in text for text in texts)


def test_a_large_picture_is_a_small_jpeg_of_the_same_pixels(full):
    noise = Image.effect_noise((600, 500), 40).convert("RGB")
    file = BytesIO()
    noise.save(file, "PNG")
    (full / "maps.png").write_bytes(file.getvalue())
    _, page = read(full)
    (source,) = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    kind, _, content = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    jpeg = base64.b64decode(content)
    assert len(jpeg) < len(file.getvalue()) / 2
    shown = Image.open(BytesIO(jpeg))
    assert shown.size == noise.size
    difference = np.asarray(shown, dtype=float) - np.asarray(noise)
    assert np.abs(difference).mean() < 4


def test_what_sets_left_out_and_the_command_are_told(full):
    rejects = [{"reason": "truncated", "count": 4, "examples": ["a/1.jpg", "<b>.jpg"]}]
    sets = [{"name": "train", "seen": 2004, "kept": 2000, "rejects": rejects}]
    sets += [{"name": "val", "seen": 400, "kept": 400, "rejects": []}]
    write(full, RESULTS | {"sets": sets, "command": "care pipeline run --images 'my <photos>'"})
    text, page = read(full)
    cells = [text for tag, _, text in page.cells if tag == "td"]
    assert "4 truncated: a/1.jpg, <b>.jpg, …" in cells
    assert cells[cells.index("val") :][:4] == ["val", "400", "400", "nothing"]
    assert "2,004" in cells
    assert "care pipeline run --images &#39;my &lt;photos&gt;&#39;" in text


def curves(page):
    """The points of each curve, by the caption."""
    captions = [text for tag, _, text in page.cells if tag == "figcaption"]
    lines = [attributes["points"] for tag, attributes in page.elements if tag == "polyline"]
    by_caption = {}
    for caption, points in zip(captions, lines, strict=True):
        by_caption[caption] = [tuple(map(float, point.split(","))) for point in points.split()]
    return by_caption


def test_a_curve_goes_through_the_losses(full):
    _, page = read(full)
    drawn = curves(page)
    titles = [caption.partition(" (")[0] for caption in drawn]
    assert titles[:2] == ["C-stream loss", "T-stream loss"]
    assert titles[2:] == ["attention supervision", "spread of the embeddings"]
    caption, points = next(iter(drawn.items()))
    assert caption.endswith("3.03")
    assert len(points) == 30
    assert (points[0], points[-1]) == ((0, 5), (420, 145))
    for n, (x, y) in enumerate(points):  # a straight line
        assert x == pytest.approx(420 * n / 29, abs=0.06)
        assert y == pytest.approx(5 + 140 * n / 29, abs=0.06)
    text = "".join(page.text)
    assert "30" in text.split("step 0")[1].split()
    assert len({y for _, y in drawn["T-stream loss (Eq. 3)4"]}) == 1


def test_a_long_run_is_drawn_by_means(tmp_path):
    write_losses(tmp_path, 2100)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    for n, row in enumerate(lines):
        row["cnn"] = n * n % 137 / 100
    (tmp_path / "losses.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, page = read(tmp_path)
    points = next(iter(curves(page).values()))
    assert len(points) == 210
    means = [sum(row["cnn"] for row in lines[at : at + 10]) / 10 for at in range(0, 2100, 10)]
    low, high = min(means), max(means)
    heights = [145 - 140 * (mean - low) / (high - low) for mean in means]
    assert [y for _, y in points] == pytest.approx(heights, abs=0.06)


def test_what_is_measured_now_and_then_stands_at_its_steps(tmp_path):
    write_losses(tmp_path, 21)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    for n in (5, 10, 20):
        lines[n]["knn"] = 20.0 + n
    (tmp_path / "losses.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, page = read(tmp_path)
    drawn = [place for point in curves(page)["kNN on the way, top-1 %40"] for place in point]
    assert drawn == pytest.approx([105, 145, 210, 5 + 140 * 10 / 15, 420, 5], abs=0.06)


def test_the_settings_of_a_run_are_told(tmp_path):
    write_losses(tmp_path, 3)
    place = tmp_path / "checkpoints" / "step-00000003" / "manifest.json"
    place.parent.mkdir(parents=True)
    settings = {"encoder": "resnet18-small", "size": 48, "steps": 1500, "batch_size": 32}
    settings |= {"lr": 0.05, "warmup": 150, "momentum": 0.99, "seed": 3, "objective": "BYOL()"}
    settings["optimizer"] = "lars vector_lr=0.0048"
    place.write_text(json.dumps({"settings": settings}))
    about = {"data": "sets/a<b>", "images": 240, "began": "2026-11-30T12:00:00+00:00"}
    about["versions"] = {"care": "0.2.0", "torch": "2.14.1"}
    (tmp_path / "about.json").write_text(json.dumps(about))
    _, page = read(tmp_path)
    cells = [text for tag, _, text in page.cells if tag == "td"]
    assert cells[:6] == [
        "resnet18-small",
        "views of 48 px",
        "1,500 steps of 32 images",
        "lars vector_lr=0.0048",
        "0.05 for 256 images, after a warm-up of 150 steps",
        "0.99 at first",
    ]
    # 1,500 × 32 / 240
    assert "240 of sets/a<b>, each seen about 200.0 times" in cells
    assert "2026-11-30T12:00:00+00:00" in cells
    assert "care 0.2.0, torch 2.14.1" in cells


def test_a_run_tells_its_command_and_what_its_set_left_out(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "1.png")
    (photos / "notes.txt").write_text("no image")
    index = shards.build(photos, tmp_path / "set")
    run = tmp_path / "run"
    place = run / "checkpoints" / "step-00000003" / "manifest.json"
    place.parent.mkdir(parents=True)
    write_losses(run, 3)
    settings = {"objective": "BYOL()", "data": index.digest, "steps": 3, "batch_size": 1}
    place.write_text(json.dumps({"settings": settings}))
    about = {"data": str(tmp_path / "set"), "images": 1, "began": "", "versions": {}}
    (run / "about.json").write_text(json.dumps(about))
    (run / "command.json").write_text('{"commands": ["care pretrain set RUN --lr 0.1"]}')
    text, page = read(run)
    assert "care pretrain set RUN --lr 0.1" in text
    assert "RUN is this folder" in text
    cells = [text for tag, _, text in page.cells if tag == "td"]
    assert cells[:4] == ["set", "2", "1", "1 other file: notes.txt"]
    (photos / "2.png").write_bytes((photos / "1.png").read_bytes())
    shutil.rmtree(tmp_path / "set")
    shards.build(photos, tmp_path / "set")
    text, _ = read(run)
    assert "notes.txt" not in text  # another set by now


def test_a_run_of_an_earlier_version_tells_what_it_recorded(tmp_path):
    write_losses(tmp_path, 3)
    place = tmp_path / "checkpoints" / "step-00000003" / "manifest.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"settings": {"objective": "BYOL()", "seed": 1}}))
    _, page = read(tmp_path)
    assert [text for tag, _, text in page.cells if tag == "td"] == ["BYOL()", "1"]


def test_the_settings_of_a_pipeline_are_told(tmp_path):
    settings = {"steps": 250, "batch_size": 32, "warmup": 25, "lr": 0.4, "momentum": 0.99}
    encoder = {"name": "resnet18-small-half", "size": 48, "sha256": "ab12"}
    results = RESULTS | {"settings": settings, "seed": 0, "encoder": encoder}
    results["evaluations"] = [
        row | {"versions": {"care": "0.2.0"}} for row in RESULTS["evaluations"]
    ]
    write(tmp_path, results)
    _, page = read(tmp_path)
    cells = [text for tag, _, text in page.cells if tag == "td"]
    assert "0.4 for 256 images, after a warm-up of 25 steps" in cells
    assert "care 0.2.0" in cells
    assert "encoder.safetensors in this folder, SHA-256 ab12" in cells


def test_results_beside_are_those_judged_alike(tmp_path):
    from care.show.groups import rows_beside

    ours = KNN | {"encoder": "a", "digests": {"encoder": "1", "val": "v"}, "top1": 1.0}
    alike = KNN | {"encoder": "b", "digests": {"encoder": "2", "val": "v"}, "top1": 2.0}
    other_data = KNN | {"encoder": "b", "digests": {"encoder": "2", "val": "w"}, "top1": 3.0}
    other_task = LINEAR | {"encoder": "b", "digests": {"encoder": "2", "val": "v"}, "top1": 4.0}
    rows = [alike, other_data, ours, other_task]
    assert rows_beside(rows, "1") == [alike, ours]
    assert rows_beside(rows, "3") == []


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run whose encoder has the digest 1."""
    run = tmp_path / "runs/a"
    run.mkdir(parents=True)
    write_losses(run, 1)
    monkeypatch.setattr(report_room, "load_encoder", lambda _: None)
    monkeypatch.setattr(report_room, "digest_of", lambda _: "1")
    return run


def test_results_of_the_wrong_folder_or_of_other_encoders_are_no_empty_page(trained, tmp_path):
    with pytest.raises(CareError, match=r"typo does not exist; wanted a folder of"):
        report(trained, judged=tmp_path / "typo")
    judged = tmp_path / "judged"
    judged.mkdir()
    write(judged, {"evaluations": [KNN | {"encoder": "other", "digests": {"encoder": "2"}}]})
    with pytest.raises(CareError, match=r"none of the 1 results in .* they are of other; judge it"):
        report(trained, judged=judged)
    assert not (trained / "report.html").exists()
    write(judged, {"evaluations": [KNN | {"encoder": "a", "digests": {"encoder": "1"}}]})
    assert "<td>a</td>" in report(trained, judged=judged).read_text()


def test_a_run_that_nobody_has_judged_yet_has_a_page_and_is_told_so(trained, tmp_path, capsys):
    assert report(trained, judged=tmp_path / "evaluations", optional=True).exists()
    assert "the page has no results" in capsys.readouterr().err


def test_results_of_its_own_are_not_mixed_with_others(full, tmp_path):
    with pytest.raises(CareError, match="has results of its own"):
        report(full, judged=tmp_path)
    assert report(full, judged=tmp_path, optional=True).exists()


def test_losses_alone_make_a_report(tmp_path):
    write_losses(tmp_path, 1)
    text, page = read(tmp_path)
    assert "CARE pre-training" in text
    assert len(curves(page)) == 4
    assert not {tag for tag, _ in page.elements} & {"table", "img"}


def test_a_c_stream_alone_has_no_empty_curves(tmp_path):
    write_losses(tmp_path, transformer=0.0, attention=0.0)
    _, page = read(tmp_path)
    assert [caption.partition(" (")[0] for caption in curves(page)] == [
        "C-stream loss",
        "spread of the embeddings",
    ]


@pytest.mark.parametrize("losses", [False, True])
def test_results_alone_make_a_report(tmp_path, losses):
    write(tmp_path)
    if losses:  # of a run that has not finished its first step
        (tmp_path / "losses.jsonl").write_text("")
    _, page = read(tmp_path)
    assert "71.3" in [text for _, _, text in page.cells]
    assert not {tag for tag, _ in page.elements} & {"svg", "img"}


def test_a_second_report_replaces_the_first(full):
    first = report(full).read_text()
    write(full, RESULTS | {"title": "Another"})
    second = report(full).read_text()
    assert "Another" in second
    assert "Another" not in first
    report(full)
    assert [path.name for path in full.iterdir() if path.name.startswith(".")] == []


def test_a_folder_without_results_and_losses_is_refused(tmp_path):
    (tmp_path / "maps.png").write_bytes(png())
    message = r"holds neither results\.json nor losses\.jsonl; wanted a directory"
    with pytest.raises(CareError, match=message):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_rows_with_other_measures_have_tables_of_their_own(tmp_path):
    detection = {"task": "detection", "encoder": "trained", "protocol": "Faster R-CNN"}
    detection |= {"ap": 22.94, "ap50": 43.9, "ap75": 21.5}
    attention = {"task": "attention", "encoder": "random", "protocol": "inside the masks"}
    attention |= {"inside": 33.06, "area": 31.0}
    write(tmp_path, RESULTS | {"evaluations": [*RESULTS["evaluations"], detection, attention]})
    page = Page(report(tmp_path).read_text())
    headings = [text for text in page.text if text.endswith(" %")]
    assert headings == ["top-1 %", "top-5 %", "AP %", "AP50 %", "AP75 %", "inside %"]
    numbers = [text for tag, kind, text in page.cells if tag == "td" and "number" in kind]
    assert " ".join(numbers) == "71.3 93.5 41.0 80.0 80.0 97.0 22.9 43.9 21.5 33.1"
    assert sum("best" in kind for _, kind, _ in page.cells) == 4
    assert "detection: Faster R-CNN" in [text for _, _, text in page.cells]


def test_the_losses_of_a_detector_are_curves(tmp_path):
    line = {"classifier": 1.0, "box_reg": 0.5, "mask": 0.6, "objectness": 0.7, "rpn_box_reg": 0.1}
    line |= {"total": 2.9, "lr": 0.1}
    lines = [json.dumps({"step": n} | line) for n in range(5)]
    (tmp_path / "losses.jsonl").write_text("\n".join(lines))
    assert report(tmp_path).read_text().count("<polyline") == 5


def test_deviations_masks_and_different_settings_are_told(tmp_path):
    boxes = {"task": "COCO FPN", "protocol": "Mask R-CNN"}
    boxes |= {"ap": 39.12, "ap50": 60.0, "mask_ap": 35.6, "mask_ap50": None}
    short = {"encoder": "a", "settings": {"iterations": 100}}
    long = {"encoder": "b", "settings": {"iterations": 90000}, "trials": 5, "ap_std": 0.26}
    write(tmp_path, {"evaluations": [boxes | short, boxes | long | {"ap75": 41.0}]})
    page = Page(report(tmp_path).read_text())
    headings = [text for text in page.text if text.endswith(" %")]
    assert headings == ["AP %", "AP50 %", "AP75 %", "mask AP %"]
    cells = [text for tag, _, text in page.cells if tag == "td"]
    assert cells[:6] == ["COCO FPN (1)", "a", "39.1", "60.0", "–", "35.6"]
    assert cells[6:] == ["COCO FPN (2)", "b", "39.1 ± 0.3", "60.0", "41.0", "35.6"]
    assert [text for tag, _, text in page.cells if tag == "p"] == [
        "COCO FPN (1): Mask R-CNN; iterations 100",
        "COCO FPN (2): Mask R-CNN; mean ± standard deviation of 5 trials; iterations 90000",
    ]


def test_a_run_at_a_url_has_its_report_there(full):
    store = fsspec.filesystem("memory")
    store.put(f"{full}/*", "/runs/r50/")
    (full / "maps.png").unlink()  # what is written is the report of the store's files
    assert report("memory://runs/r50") == "memory://runs/r50/report.html"
    page = Page(store.cat_file("/runs/r50/report.html").decode())
    assert len(curves(page)) == 4
    assert "71.3" in [text for _, _, text in page.cells]
    assert [attributes["src"] for tag, attributes in page.elements if tag == "img"] == [
        "data:image/png;base64," + base64.b64encode(png()).decode()
    ]
    assert not (full / "report.html").exists()
    with pytest.raises(CareError, match=r"memory://runs/none does not exist"):
        report("memory://runs/none")
