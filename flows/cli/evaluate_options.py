"""What every `care evaluate` is asked beside the parameters of its function, with its help."""

from typing import Annotated
import typer

EncoderSources = Annotated[
    list[str],
    typer.Argument(metavar="ENCODER…", help="Runs, weights files, random:NAME, supervised:NAME."),
]
ResultsFolder = Annotated[
    str, typer.Option(help="Folder for results, runs and features, path or URL.")
]
Trials = Annotated[int, typer.Option(min=1, help="Seeds; their mean and deviation are told.")]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes that train a network together, such as one a GPU.")
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE,CLASSES…",
        help="Columns of a table: that of the images, and that of their classes, or one of 1 and 0"
        " for each class.",
    ),
]
NetworkKey = Annotated[
    str | None,
    typer.Option(
        help="Which network of other people's files that have several, such as teacher; of one file"
        " alone it is FILE:teacher."
    ),
]
PixelMean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Of the pixels in 0…1 that other people's files were trained on; by default"
        " ImageNet's.",
    ),
]
PixelDeviation = Annotated[
    str | None, typer.Option(metavar="R,G,B", help="Their deviation, with --mean.")
]
