"""How the page looks: contrast by its colours, and in a browser where there is one."""

import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
import pytest
from PIL import Image
from care.show import report

STYLE = Path(__file__).parents[3] / "care" / "show" / "report.css"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TEXTS = ("ink", "dim", "accent", "behind")
# WCAG 2.2: text at least 4.5, what a drawing shows at least 3
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0
LONG = "a-name-without-any-space-that-is-far-too-long-for-a-phone-" * 2
# the page inside of a page that measures it, since only a page knows its own width
MEASURING = """<!doctype html><iframe width={width} height=900 srcdoc="{page}"></iframe><p></p>
<script>
onload = () => {{
  const inner = document.querySelector("iframe").contentDocument;
  const root = inner.documentElement;
  const overflow = root.scrollWidth - root.clientWidth;
  const broken = [...inner.images].filter(image => !image.naturalWidth).length;
  document.querySelector("p").textContent = `overflow ${{overflow}} broken ${{broken}}`;
}};
</script>"""


def schemes() -> dict[str, dict[str, tuple[float, float, float]]]:
    """The colours of the page by scheme and name."""
    text = STYLE.read_text()
    # light, dark, paper
    blocks = re.findall(r":root \{([^}]*)\}", text)
    assert len(blocks) == 3
    by_scheme = {}
    for scheme, block in zip(("light", "dark", "paper"), blocks, strict=True):
        pairs = re.findall(r"--(\w+): #([0-9a-f]+)", block)
        by_scheme[scheme] = {name: channels(code) for name, code in pairs}
    return by_scheme


def channels(code: str) -> tuple[float, float, float]:
    if len(code) == 3:
        code = "".join(digit * 2 for digit in code)
    red, green, blue = (int(code[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


def luminance(colour: tuple[float, float, float]) -> float:
    linear = [
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def mixed(colour, background, opacity):
    return tuple(
        opacity * of_colour + (1 - opacity) * behind
        for of_colour, behind in zip(colour, background, strict=True)
    )


def test_black_on_white_has_the_contrast_of_the_standard() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(channels("777"), (1, 1, 1)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_text_is_readable_and_marks_are_seen(scheme: str) -> None:
    colours = schemes()[scheme]
    for background in ("page", "card"):
        for text in TEXTS:
            ratio = contrast(colours[text], colours[background])
            assert ratio >= TEXT_CONTRAST, (text, background, ratio)
    for number in range(8):
        mark = mixed(colours[f"c{number}"], colours["card"], 0.85)
        assert contrast(mark, colours["card"]) >= MARK_CONTRAST, number


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = []
    for task in ("kNN", "10 % of the labels", LONG):
        for encoder, base in (("CARE", 60.0), ("random initialisation", 50.0)):
            draws = [base + n % 3 for n in range(20)]
            row = {"task": task, "encoder": encoder, "protocol": LONG, "resampled": draws}
            rows.append(row | {"top1": base, "top5": 90.0, "balanced": 50.0})
    rejects = [{"reason": "truncated", "count": 2, "examples": [LONG, LONG]}]
    results = {
        "title": f"CARE on {LONG}",
        "evaluations": rows,
        "sets": [{"name": "train", "seen": 20, "kept": 18, "rejects": rejects}],
        "stages": [{"name": LONG, "text": LONG}],
        "encoder": {"name": "resnet18", "size": 48, "sha256": "0" * 64},
        "command": f"care pipeline run --images {LONG} --out DIR",
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    lines = [json.dumps({"cnn": 4 - n / 30, "spread": 0.9}) for n in range(30)]
    (tmp_path / "losses.jsonl").write_text("\n".join(lines))
    classes = ["a", LONG]
    points = [[n % 7, n % 5] for n in range(30)]
    labels = [n % 2 for n in range(30)]
    plane = {"encoder": "CARE", "classes": classes, "explained": [0.5, 0.2]}
    (tmp_path / "embedding.json").write_text(
        json.dumps(plane | {"points": points, "labels": labels})
    )
    picture = BytesIO()
    Image.new("RGB", (900, 300), "red").save(picture, "PNG")
    (tmp_path / "maps.png").write_bytes(picture.getvalue())
    return tmp_path


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_phone_shows_all_of_it_and_nothing_is_wrong(run: Path, tmp_path: Path) -> None:
    """Starts a browser, which takes some seconds."""
    assert CHROMIUM
    page = Path(report(run)).read_text().replace("&", "&amp;").replace('"', "&quot;")
    outer = tmp_path / "outer.html"
    outer.write_text(MEASURING.format(width=360, page=page))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, "--virtual-time-budget=3000", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<p>overflow 0 broken 0</p>" in shown.stdout
    assert "CONSOLE" not in shown.stderr
