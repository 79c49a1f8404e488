"""The page about a pipeline."""

from collections.abc import Mapping, Sequence
import torch
from PIL import Image
import shards
from care.attention import Transformer
from care.encoders import Encoder
from care.evaluate import extract
from care.evaluate.features import Features, pooled_features
from care.show import as_markdown, differences, sheet, verdict
from care.show import report as write_page
from care.show.embedding import FILE as EMBEDDING_FILE
from care.show.embedding import embedding
from care.show.export import PLAIN
from care.show.maps import WORDS_FILE, sheet_caption
from care.show.neighbours import nearest_of_rows, neighbour_sheet, query_of, spread_rows
from care.show.set_contents import set_contents
from care.train import load_encoder
from care.train.stored_transformer import load_stream
from flows.result import Result
from flows.works.outputs import outputs
from shards import ShardSet, storage
from shards.image_size import ImageSize

# what the folder of a page may have
FILES = (
    "results.json",
    "results.md",
    "losses.jsonl",
    "maps.png",
    WORDS_FILE,
    "neighbours.png",
    "segmentation.png",
    EMBEDDING_FILE,
    "report.html",
)
PICTURED = 8  # images whose attention is drawn
# images whose nearest neighbours are drawn, and how many of each
QUERIES, NEIGHBOURS = 5, 6
# images of a set without classes whose features are extracted for the page
PLACED = 500


def report(  # noqa: PLR0913 (the inputs of a stage)
    out: str,
    *,
    results: Result,
    encoders: dict[str, str],
    sets: dict[str, str],
    pictured: str,
    size: ImageSize,
    cache: str | None = None,
    segmented: str | None = None,
    main: str = "CARE",
    seed: int = 0,
) -> Result:
    """The page about a pipeline and what it shows.

    Args:
        out: folder for ``results.json``, to which a verdict and what the sets left out are added,
            and all of ``FILES``.
        results: what the pipeline found, with its evaluations.
        encoders: sources of the encoders by name, the main one among them.
        sets: all shard sets by name.
        pictured: name of the set whose first images have their attention drawn, and of whose images
            the main encoder's features are.
        size: of the crops, pixels.
        cache: folder with the main encoder's features of that set's images with a class.
        segmented: picture of what a segmenter on the main encoder has predicted.
        main: name of the encoder whose losses and features are shown.
        seed: of encoders that are initialised here.

    Returns:
        The files with their digests, and the tables for a Prefect artifact.
    """
    data = shards.open(sets[pictured])
    images = [data.image(number) for number in range(min(PICTURED, len(data)))]
    networks = {name: load_encoder(source, seed=seed) for name, source in encoders.items()}
    stream = load_stream(encoders[main])
    transformers = {main: stream.transformer} if stream is not None else {}
    _draw_maps(out, images, networks, transformers, size=size)
    if segmented:
        storage.copy(segmented, f"{out}/segmentation.png")
    _draw_features(out, main, networks[main], data, size=size, cache=cache)
    rows = results["evaluations"]
    verdict_text = verdict(rows)
    findings = [difference._asdict() for difference in differences(rows)]
    contents = [set_contents(name, shards.open(url).index) for name, url in sets.items()]
    judged = results | {"verdict": verdict_text, "differences": findings, "sets": contents}
    storage.write_json(f"{out}/results.json", judged)
    storage.copy(f"{encoders[main]}/losses.jsonl", f"{out}/losses.jsonl")
    write_page(out)
    tables = as_markdown(rows)
    opening = f"{verdict_text.translate(PLAIN)}\n\n" if verdict_text else ""
    storage.write_bytes(f"{out}/results.md", (opening + tables).encode())
    files = outputs(out, *(name for name in FILES if name in storage.listing(out)))
    return {"outputs": files, "text": f"{len(rows)} results", "markdown": tables}


def _draw_maps(
    out: str,
    images: Sequence[Image.Image],
    networks: Mapping[str, Encoder],
    transformers: Mapping[str, Transformer],
    *,
    size: ImageSize,
) -> None:
    """Leave where encoders look, and what the transformers of their T-streams attend to.

    Args:
        out: folder of the page.
        images: to look at.
        networks: the encoders, by their names on the page.
        transformers: likewise, by the names of their encoders.
        size: of the crops, pixels.
    """
    maps = sheet(images, networks, size=size, transformers=transformers)
    storage.write_bytes(f"{out}/maps.png", maps)
    rows = list[str]()
    for name in networks:
        rows.append(name)
        if name in transformers:
            rows.append(f"{name} T-stream")
    words = {"caption": sheet_caption(transformers.values()), "rows": rows}
    storage.write_json(f"{out}/{WORDS_FILE}", words)


def _draw_features(
    out: str, name: str, encoder: Encoder, data: ShardSet, *, size: ImageSize, cache: str | None
) -> None:
    """Leave where an encoder puts images of a set and which it takes for alike, if it has several.

    Args:
        out: folder of the page.
        name: the encoder's on the page.
        encoder: the encoder.
        data: the set: of its images those with a class, or of a set without classes the first.
        size: of the crops, pixels.
        cache: folder with features of those with a class.
    """
    labelled = data.labelled()
    if len(labelled):
        data = labelled
        features = extract(encoder, data, size=size, cache=cache)
    else:
        first = range(min(PLACED, len(data)))
        x = pooled_features(encoder, data, {0: first}, size=size)
        features = Features(x, torch.full((len(x),), -1), 0)
    if len(features.x) < 2:
        return
    content = embedding(name, features, data.classes)
    storage.write_json(f"{out}/{EMBEDDING_FILE}", content)
    rows = spread_rows(len(features.x), QUERIES)
    neighbours = nearest_of_rows(features.x, rows, NEIGHBOURS)
    queries = [query_of(data, row) for row in rows]
    title = f"images of the set, and those nearest to them by {name}"
    png = neighbour_sheet(data, queries, neighbours, title=title)
    storage.write_bytes(f"{out}/neighbours.png", png)
