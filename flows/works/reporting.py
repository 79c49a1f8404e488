"""The page about a pipeline."""

import shards
from care.image_size import ImageSize
from care.show import as_markdown, differences, sheet, verdict
from care.show import report as write_page
from care.show.export import PLAIN
from care.train import load_encoder
from flows.result import Result
from flows.works.outputs import outputs
from shards import storage

PICTURED = 8  # images whose attention is drawn


def report(
    out: str,
    *,
    results: Result,
    encoders: dict[str, str],
    pictured: str,
    size: ImageSize,
    main: str = "CARE",
    seed: int = 0,
) -> Result:
    """The page about a pipeline and what it shows.

    Args:
        out: folder for ``results.json``, to which a verdict is added, ``results.md``,
            ``losses.jsonl``, ``maps.png`` and ``report.html``.
        results: what the pipeline found, with its evaluations.
        encoders: sources of the encoders by name, the main one among them.
        pictured: shard set whose first images have their attention drawn.
        size: of the crops, pixels.
        main: name of the encoder whose losses are shown.
        seed: of encoders that are initialised here.

    Returns:
        The files with their digests, and the tables for a Prefect artifact.
    """
    data = shards.open(pictured)
    images = [data.image(number) for number in range(min(PICTURED, len(data)))]
    networks = {name: load_encoder(source, seed=seed) for name, source in encoders.items()}
    storage.write_bytes(f"{out}/maps.png", sheet(images, networks, size=size))
    rows = results["evaluations"]
    verdict_text = verdict(rows)
    findings = [difference._asdict() for difference in differences(rows)]
    judged = results | {"verdict": verdict_text, "differences": findings}
    storage.write_json(f"{out}/results.json", judged)
    storage.copy(f"{encoders[main]}/losses.jsonl", f"{out}/losses.jsonl")
    write_page(out)
    tables = as_markdown(rows)
    opening = f"{verdict_text.translate(PLAIN)}\n\n" if verdict_text else ""
    storage.write_bytes(f"{out}/results.md", (opening + tables).encode())
    files = outputs(out, "results.json", "results.md", "losses.jsonl", "maps.png", "report.html")
    return {"outputs": files, "text": f"{len(rows)} results", "markdown": tables}
