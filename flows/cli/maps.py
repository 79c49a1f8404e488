"""`care maps`: where encoders look at images, as pictures side by side."""

from typing import Annotated, Any
import typer
import shards
from care.evaluate.class_probe import train_probe
from care.show.map_pictures import Network, draw_maps
from care.show.maps import WORDS_FILE
from care.train.stored_transformer import load_stream
from flows.cli.options import Json, Seed, add_command, new_app
from flows.cli.tables import print_json
from flows.sizes import common_sizes
from flows.works.encoders import encoder_on_device
from shards import storage
from shards.progress import say
from shards.some_images import some_images

app = new_app()


def _draw(
    encoder: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER…", help="Runs, weights files, random:NAME, supervised:NAME."
        ),
    ],
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="An image, a folder of some, a list, or a shard set."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Folder for maps.png and a picture of each map, path or URL; of a run's own"
            " directory, care report shows them."
        ),
    ] = "maps",
    count: Annotated[int, typer.Option(min=1, help="Images, spread over all there are.")] = 8,
    train: Annotated[
        str | None,
        typer.Option(help="Shard set with labels, from which --kind class learns its classes."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Draw the maps and say where they are."""
    kinds = settings["kind"]
    pictured = some_images(images, count)
    if settings["size"] is None:
        size_of_runs = common_sizes(encoder)[0]
        settings["size"] = size_of_runs or encoder_on_device(encoder[0], seed).size
    networks = {}
    for source in encoder:
        network = encoder_on_device(source, seed)
        device = next(network.parameters()).device
        transformer = probe = None
        stream = load_stream(source) if "t-stream" in kinds else None
        if stream is not None:
            transformer = stream.transformer.to(device)
        if train is not None and "class" in kinds:
            say(f"a linear layer on features of {train} by {source}")
            probe = train_probe(network, shards.open(train), size=settings["size"], seed=seed)
        networks[source] = Network(network, transformer, probe)
    pictures = draw_maps(networks, pictured, **settings)
    for name, content in pictures.files.items():
        storage.write_bytes(f"{out}/{name}", content)
    names = [image.name for image in pictured]
    facts = {"caption": pictures.caption, "rows": pictures.rows, "images": names}
    storage.write_json(f"{out}/{WORDS_FILE}", facts)
    storage.write_bytes(f"{out}/maps.png", pictures.sheet)
    if as_json:
        files = [f"{out}/{name}" for name in pictures.files]
        print_json({"sheet": f"{out}/maps.png", **facts, "files": files})
        return
    typer.echo(f"{out}/maps.png: {len(names)} images, {len(pictures.rows)} rows of maps")
    typer.echo(pictures.caption)


add_command(
    app,
    draw_maps,
    _draw,
    "care maps runs/r50 random:resnet50 photos --kind grad-cam,t-stream",
    name="maps",
    names={"class_name": "--class"},
)
