"""`care features`: what an encoder makes of the images of a set, as a file for other programs."""

from typing import Annotated, Any
import typer
import shards
from care.evaluate import write_features
from care.evaluate.feature_files import check_feature_file
from flows.cli.options import Json, Seed, SetPath, add_command, new_app
from flows.cli.tables import print_json
from flows.works.encoders import encoder_on_device

app = new_app()


def _write(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER", help="Run, weights file, random:NAME or supervised:NAME."
        ),
    ],
    path: SetPath,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="File .npy, .parquet or .safetensors; path or URL.")
    ],
    seed: Seed = 0,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Write the features and say what is in the file."""
    check_feature_file(out)
    data = shards.open(path)
    network = encoder_on_device(encoder, seed)
    features = write_features(network, data, out, **settings)
    images, width = features.x.shape
    labelled = int((features.y >= 0).sum())
    size = settings["size"] or network.size
    if as_json:
        facts = {"file": out, "images": images, "features": width, "labelled": labelled}
        print_json(facts | {"size": size})
        return
    typer.echo(
        f"{out}: {width:,} features of {images:,} images at {size} px, {labelled:,} with a class"
    )


add_command(
    app,
    write_features,
    _write,
    "care features runs/r50 sets/photos photos.parquet",
    name="features",
)
