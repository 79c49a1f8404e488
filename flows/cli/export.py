"""`care export`: an encoder as other libraries have it, read again by these on writing."""

from typing import Annotated, Any
import typer
from care.export import export_encoder
from flows.cli.options import Json, add_command, new_app
from flows.cli.tables import print_json

app = new_app()


def _export(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="Run, folder of a pipeline, weights file, random:NAME or supervised:NAME.",
        ),
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder that is not there yet, path or URL.")
    ],
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Write the encoder and say what was verified."""
    written = export_encoder(encoder, dest, **settings)
    if as_json:
        facts = {"folder": written.folder, "files": written.files}
        print_json(facts | {"verified": written.checked._asdict()})
        return
    typer.echo(f"{written.folder}: {', '.join(written.files)}")
    typer.echo(written.checked.text)


add_command(
    app,
    export_encoder,
    _export,
    "care export runs/r50 r50-timm --to timm --license apache-2.0",
    names={"license_id": "--license", "judged": "--evaluations"},
    name="export",
)
