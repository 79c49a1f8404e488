"""Other people's checkpoints: which of its tensors are a ResNet, and which ResNet it is.

The network in a file is found by steps that each have a name: where ResNets begin
(``find_branches``), which of them is the encoder (``choose_branch``), what its tensors are called
here (``rename_branch``), what architecture they have (``match_architecture``). What weights do not
tell is asked for, never guessed.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple
import torch
from torch import Tensor
from care.encoders import ENCODER_NAMES, ENCODERS, GRAY, RGBN, build_encoder
from care.errors import CareError
from care.train.encoder_source import EncoderSource
from care.train.naming import DETECTRON2, Naming, find_branches, rename_branch
from care.train.weights import POSITIONS, Misfit, misfit
from care.vit import VITS, ViTEncoder
from shards.progress import say

# words in the names of networks
ONLINE = frozenset({"online", "student", "query", "q"})
TARGET = frozenset({"target", "teacher", "momentum", "ema", "key", "k"})
CARES_STUDENT = "student_encoder."  # in the authors' checkpoints, which also have the teacher
# beginnings of the names of what is put on an encoder; the last is CARE's transformer
HEADS = ("fc", "head", "proj", "pred", "mlp", "neck", "linear", "class", "proto", "trans")


class Recognised(NamedTuple):
    """A ResNet that was found among tensors.

    Attributes:
        encoder: name of its architecture in ``ENCODERS``.
        tensors: its state by torchvision's keys, with batch counters.
        assumed: what is supposed of it that the weights do not tell.
    """

    encoder: str
    tensors: dict[str, Tensor]
    assumed: str


class Match(NamedTuple):
    """The architecture that tensors have, or the closest one.

    Attributes:
        encoder: its name.
        tensors: the state, with batch counters of 0 where the file has none.
        misfit: how the state differs from the architecture's.
    """

    encoder: str
    tensors: dict[str, Tensor]
    misfit: Misfit


class Branch(NamedTuple):
    """One network of a checkpoint.

    Attributes:
        prefix: where its names begin.
        keys: the names of its tensors in the file, without those of heads.
        match: what it is.
        assumed: what is supposed of it beside its architecture.
    """

    prefix: str
    keys: Collection[str]
    match: Match
    assumed: str


def recognise(tensors: Mapping[str, Tensor], source: EncoderSource) -> Recognised:
    """Find the encoder in other people's checkpoint, and say what was taken for what.

    Args:
        tensors: all of the checkpoint's, by dotted name.
        source: where they are from, and what is wanted of them.

    Raises:
        CareError: There is no network, or more than one; it is none of ours; or its weights do not
            tell which one it is.
    """
    is_model = source.architecture.startswith((*VITS, "torchvision:", "timm:"))
    branch = find_model(tensors, source) if is_model else find_resnet(tensors, source)
    match = branch.match
    place = f"under {branch.prefix!r}"
    if match.misfit.differing:
        wanted = source.architecture or f"one of {', '.join(ENCODERS)}"
        closest = f"{match.encoder}, the closest," if match.encoder != wanted else "it"
        raise CareError(
            f"wanted {wanted} {place} in {source.place}, got one that differs from {closest} by "
            f"{match.misfit.text}; give it whole, with only heads beside it"
        )
    others = passed_over((key for key in tensors if key not in branch.keys), branch.prefix)
    passed = ", ".join(others) or "nothing"
    say(f"{source.place}: {match.encoder} {place}; passed over: {passed}")
    assumed = f"{match.encoder} {place}, {branch.assumed}"
    return Recognised(source.architecture or match.encoder, match.tensors, assumed)


def find_resnet(tensors: Mapping[str, Tensor], source: EncoderSource) -> Branch:
    """Find the weights of a ResNet, by the names of any of the libraries that we know.

    Args:
        tensors: all of the checkpoint's, by dotted name.
        source: where they are from, and what is wanted of them.

    Raises:
        CareError: There is no network, or more than one; or its weights do not tell which it is.
    """
    branches = find_branches(tensors)
    prefix = choose_branch(branches, source)
    naming = branches[prefix]
    names = rename_branch(tensors, prefix, naming)
    body = {key: name for key, name in names.items() if not name.startswith(HEADS)}
    match = match_architecture(
        {name: tensors[key] for key, name in body.items()}, source.architecture
    )
    if not source.architecture and not match.misfit.differing:
        _ask_for_architecture(match.encoder, naming, prefix, source)
    how = "as it was asked for" if source.architecture else "by its names and shapes"
    assumed = f"{how}; strides and paddings as torchvision's but for the stem"
    return Branch(prefix, body.keys(), match, assumed)


def find_model(tensors: Mapping[str, Tensor], source: EncoderSource) -> Branch:
    """Find the weights of a ViT or a model of torchvision or timm, by the model's own names.

    Args:
        tensors: all of the checkpoint's, by dotted name.
        source: where they are from, and which model they are of.

    Raises:
        CareError: There is no such network, or more than one, or a ViT has learned its positions.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(source.architecture)
    state = encoder.get_submodule("model").state_dict()
    prefix = choose_branch(_prefixes_of(state, tensors), source)
    body = dict[str, Tensor]()
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and (name in state or not name.startswith(HEADS)):
            body[name] = tensor
    keys = {prefix + name for name in body}
    if isinstance(encoder, ViTEncoder):
        _check_positions(encoder, body.pop(POSITIONS, None), source)
    with_counters = {**_counters_of(state), **body}
    own_names = {f"model.{name}": tensor for name, tensor in with_counters.items()}
    if isinstance(encoder, ViTEncoder):
        own_names["grid"] = encoder.grid
    match = Match(source.architecture, own_names, misfit(state, with_counters))
    return Branch(prefix, keys, match, "as it was asked for")


def _check_positions(encoder: ViTEncoder, table: Tensor | None, source: EncoderSource) -> None:
    """Refuse a ViT whose positions are not those that its encoder computes.

    Args:
        encoder: for images of the usual size.
        table: as timm has it in the file, or None.
        source: where it is from.
    """
    if table is None:
        return
    wanted = encoder.position_table()
    if table.shape != wanted.shape or not torch.allclose(table.float(), wanted, atol=1e-3):
        raise CareError(
            f"wanted a ViT with MoCo v3's fixed sine and cosine positions for {encoder.size} px in "
            f"{source.place}, got other ones ({POSITIONS} of {list(table.shape)}); there is no "
            "encoder for it here"
        )


def _counters_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch counters of a state as they are at first, which files may lack."""
    return {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")}


def _ask_for_architecture(encoder: str, naming: Naming, prefix: str, source: EncoderSource) -> None:
    """Ask for the name of a network that its weights leave open.

    Args:
        encoder: the network of these shapes.
        naming: how its parts are named.
        prefix: where it is in the file.
        source: as it was asked for.

    Raises:
        CareError: Networks of the same shapes differ in their strides or paddings.
    """
    color = encoder.removesuffix(GRAY)
    gray = encoder.removeprefix(color)
    network, _, stem = color.partition("-")
    if stem and not stem.startswith("half"):
        cifar, solo, small = (
            source.with_architecture(f"{network}-{name}{gray}")
            for name in ("cifar", "cifar-pad2", "small")
        )
        raise CareError(
            f"{source.place} has a {network} with a 3×3 stem under {prefix!r}, of which weights "
            f"do not tell the stride; say which it is: {cifar} of stride 1, as most code for "
            f"images of 32 px, {solo} of stride 1 and padding 2, as solo-learn's, or {small} of "
            "stride 2"
        )
    if naming is DETECTRON2 and network not in ("resnet18", "resnet34"):
        raise CareError(
            f"{source.place} has a {network} by detectron2's names under {prefix!r}, of which "
            "weights do not tell where its bottlenecks have their stride; give "
            f"{source.with_architecture(network + gray)} if it is on the 3×3 convolution "
            "(STRIDE_IN_1X1: False, as of weights that come from torchvision or MoCo); that of "
            "Caffe's (MSRA) is on the 1×1, which there is no encoder for"
        )


def _prefixes_of(state: Mapping[str, Tensor], tensors: Collection[str]) -> list[str]:
    """Where most of the names of a state are among those of tensors.

    One that is not whole is among them, so that what it lacks can be told.
    """
    first = next(iter(state))
    prefixes = [key.removesuffix(first) for key in tensors if f".{key}".endswith(f".{first}")]
    return [
        prefix
        for prefix in prefixes
        if 2 * sum(f"{prefix}{name}" in tensors for name in state) > len(state)
    ]


def choose_branch(prefixes: Iterable[str], source: EncoderSource) -> str:
    """Choose the network that is asked for among those of a checkpoint.

    Unless another is named, it is the one that gradients trained: of ``module.encoder_q.`` and
    ``module.encoder_k.`` the first one. Beside a teacher nobody can say: DINO's authors judge the
    teacher, CARE's the student.

    Args:
        prefixes: where networks begin.
        source: where they are from, and which of them is asked for.

    Raises:
        CareError: There is none, the names leave more than one, or one of them is a teacher.
    """
    every = sorted(set(prefixes))
    named = [prefix for prefix in every if _has_name(prefix, source.branch)]
    ranks = {prefix: _target_rank(prefix) for prefix in named}
    best = min(ranks.values(), default=0)
    chosen = [prefix for prefix, rank in ranks.items() if rank == best]
    if len(chosen) == 1:
        _ask_for_role(chosen[0], [prefix for prefix in named if prefix not in chosen], source)
        return chosen[0]
    network = source.architecture or "ResNet by names of torchvision, transformers or detectron2"
    if source.branch and not named:
        raise CareError(
            f"wanted a network called {source.branch!r} in {source.place}, got "
            f"{every or 'none'}; name it by a word or the beginning of one of these"
        )
    advice = "check the file"
    if chosen:
        advice = f"name one, as in {source.place}:{chosen[0].rstrip('.')}"
    raise CareError(f"wanted one {network} in {source.place}, got {chosen or 'none'}; {advice}")


def _ask_for_role(prefix: str, others: Iterable[str], source: EncoderSource) -> None:
    """Ask which network is wanted where a teacher is beside the one that gradients trained.

    Args:
        prefix: of the latter.
        others: prefixes of the networks beside it that are called as is wanted.
        source: as it was asked for.

    Raises:
        CareError: There is one, other than in CARE's own checkpoints.
    """
    teachers = [other for other in others if "teacher" in _words(other)]
    if source.branch or not teachers or CARES_STUDENT in prefix:
        return
    student = "student" if "student" in _words(prefix) else prefix.rstrip(".")
    commands = [source._replace(branch=branch) for branch in ("teacher", student)]
    of_teacher, of_student = (
        command.with_architecture(command.architecture) for command in commands
    )
    raise CareError(
        f"wanted one network in {source.place}, got {prefix!r} and a teacher, {teachers[0]!r}; say "
        f"which: {of_teacher}, which the authors of DINO, iBOT and the like judge, or {of_student}"
    )


def _has_name(prefix: str, branch: str) -> bool:
    """Whether a network is the one that is called so, by its beginning or by words."""
    return prefix.startswith(branch) or _words(branch) <= _words(prefix)


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[._]", name) if word}


def _target_rank(prefix: str) -> int:
    """−1 for the name of an online network, 1 for that of a target, 0 for what says nothing."""
    words = _words(prefix)
    return bool(TARGET & words) - bool(ONLINE & words)


def match_architecture(tensors: Mapping[str, Tensor], architecture: str = "") -> Match:
    """Find the encoder of which these tensors are the state, or the one that is closest to it.

    Args:
        tensors: by torchvision's keys, perhaps without the counters of batch norms.
        architecture: the only one that is wanted, perhaps with a tap; "" for any of three bands:
            others have no file whose fourth band's numbers are known.

    Raises:
        CareError: No encoder has that name.
    """
    wanted, _, _ = architecture.partition(":")
    if wanted not in ENCODERS and architecture:
        raise CareError(f"no encoder is called {architecture!r}; choose one of {ENCODER_NAMES}")
    with torch.device("meta"):
        states = {
            name: build().state_dict()
            for name, build in ENCODERS.items()
            if name == wanted or (not wanted and not name.endswith(RGBN))
        }
    matches = []
    for name, state in states.items():
        with_counters = {**_counters_of(state), **tensors}
        matches.append(Match(name, with_counters, misfit(state, with_counters)))
    return min(matches, key=lambda match: match.misfit.differing)


def passed_over(keys: Iterable[str], prefix: str) -> list[str]:
    """Shorten the names of tensors that are of no use to those of the networks they are in.

    Args:
        keys: their names, such as ``module.encoder_k.layer1.0.conv1.weight``.
        prefix: of what is used, such as ``module.encoder_q.``.

    Returns:
        What tells them from the prefix, such as ``module.encoder_k``; each once, sorted.
    """
    networks = set()
    for key in keys:
        shared = 0
        while shared < min(len(key), len(prefix)) and key[shared] == prefix[shared]:
            shared += 1
        networks.add(key[:shared] + key[shared:].partition(".")[0])
    return sorted(networks)
