"""What `care pretrain` is asked beside the parameters of ``care.train.pretrain``, with its help."""

from typing import Annotated
import typer
from care.encoders import ENCODERS
from care.vit import VITS

RunPath = Annotated[
    str, typer.Argument(metavar="RUN", help="Run directory or URL, new or of the same run.")
]
EncoderName = Annotated[
    str,
    typer.Option(
        help=f"{', '.join((*ENCODERS, *VITS))}, NAME:TAP, torchvision:MODEL:TAP or timm:MODEL:TAP."
    ),
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the set.")]
WarmupEpochs = Annotated[
    float | None,
    typer.Option(min=0, help="Default: the recipe's, byol's 10, at most a tenth of the run."),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Training processes on this machine, such as one a GPU.")
]
AllowedChanges = Annotated[
    list[str] | None, typer.Option(help="A setting that may differ from the run's.")
]
EpochsBetweenNeighbours = Annotated[
    int, typer.Option(min=0, help="Epochs between kNN evaluations on the way; 0: none.")
]
NeighboursSet = Annotated[
    str | None, typer.Option(help="Labelled set for them; SET has the neighbours.")
]
EpochsBetweenProbes = Annotated[
    int,
    typer.Option(
        min=0,
        help="Epochs between verdicts on the way that need no labels: RankMe, LiDAR, alignment,"
        " uniformity, agreement of neighbours; 0: none.",
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files to RUN.")
]
ImagesAStep = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Images a step, on all processes together; by default the paper's 1024, or what"
        " leaves an epoch of a smaller set four steps.",
    ),
]
