"""The weights that an encoder's training begins with, where they are not drawn at random."""

from pathlib import Path
from typing import cast
from care.encoders import Encoder
from care.errors import CareError
from care.momentum import MomentumPair, update_targets
from care.sequential import SequentialEncoder
from care.streams import CStream
from care.train.load import load_encoder
from care.train.stored import architecture, share_positions
from care.train.weights import digest_of, load_exactly


def start_from(source: str | Path, c: CStream) -> str:
    """Give both encoders of the C-stream weights that were trained before.

    Heads and transformer stay as they are drawn.

    Args:
        source: as for ``care.train.load_encoder``, such as a file or ``supervised:resnet50``.
        c: the C-stream, on the CPU.

    Returns:
        Digest of the weights, which a run records: wherever they lie, they are the same.

    Raises:
        CareError: They cannot be had, or are of another architecture than the encoder.
    """
    network = c.backbone.online
    if isinstance(network, SequentialEncoder):
        network = network.encoder
    encoder = cast(Encoder, network)
    trained = initial_encoder(source, encoder)
    load_exactly(encoder, trained.state_dict(), source=str(source))
    if isinstance(c.backbone, MomentumPair):
        c.backbone.target.load_state_dict(c.backbone.online.state_dict())
    else:
        update_targets([c.backbone], 0)
        share_positions(c, encoder)  # buffers follow nothing
    return digest_of(trained)


def initial_encoder(source: str | Path, encoder: Encoder) -> Encoder:
    """Load the weights that an encoder is to start from.

    Args:
        source: as for ``care.train.load_encoder``.
        encoder: that is to have them; it stays as it is.

    Returns:
        The encoder that has them.

    Raises:
        CareError: They cannot be had, or are of another architecture.
    """
    trained = load_encoder(source)
    if encoder.name and trained.name and architecture(encoder) != architecture(trained):
        raise CareError(
            f"wanted initial weights for the encoder {encoder.name}, got those of {trained.name} "
            f"in {source}; give --encoder {trained.name}, or other weights"
        )
    return trained
