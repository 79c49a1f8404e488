"""The arms of an experiment: ways to pre-train, by name, and what sets each apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal
from flows.recipes import BYOL, ObjectiveName, check_objectives
from flows.result import Result
from shards.errors import Misuse

REFERENCE = "c-stream"  # the arm from which the others' differences are taken by default
CARE = "care"


@dataclass(frozen=True)
class Arm:
    """One way to pre-train; the defaults of all that follows ``about`` are CARE's.

    Attributes:
        name: what the command line, the results and their files call it.
        about: what sets it apart, in a line.
        trained: whether the encoder is pre-trained at all.
        t_stream: whether there is a T-stream.
        design: where the transformer is: in a stream of its own, or behind the encoder of the only
            stream (the paper's sequential design, Sec. 4.3).
        attention_weight: λ of Eq. 5.
        blocks: attention blocks of the transformer (n, Table 7).
        position: encoding of the positions in its attention (Table 8).
        tap: stage of the encoder whose map the transformer sees.
        detach: no gradient of the T-stream goes on into the encoder (the paper's text).
        zero_gamma: every attention block starts as its shortcut; the released code resets this.
        objective: of the C-stream; others than BYOL are trained by their recipes.
        step_share: times the steps of the others; None: as many steps as cost the time of CARE's.
    """

    name: str
    about: str
    trained: bool = True
    t_stream: bool = True
    design: Literal["parallel", "sequential"] = "parallel"
    attention_weight: float = 100
    blocks: int = 5
    position: Literal["none", "sin-cos", "absolute", "relative"] = "relative"
    tap: Literal["layer2", "layer3", "layer4"] = "layer3"
    detach: bool = False
    zero_gamma: bool = True
    objective: ObjectiveName = "byol"
    step_share: float | None = 1

    def encoder(self, base: str) -> str:
        """The encoder with this arm's tap, a name for ``care.build_encoder``.

        Args:
            base: the encoder of all arms, without a tap.
        """
        return base if self.tap == CARE_ARM.tap else f"{base}:{self.tap}"

    def stage_inputs(self) -> Result:
        """What the stage that pre-trains is given for this arm.

        Only what differs from its defaults, so that a run has the key of the pipeline's equal one.
        """
        inputs: Result = {"t_stream": self.t_stream}
        # λ weighs nothing without a T-stream; the pipeline's C-stream has 0
        inputs["attention_weight"] = self.attention_weight if self.t_stream else 0
        for name in ("design", "blocks", "position", "detach", "zero_gamma", "objective"):
            if getattr(self, name) != getattr(CARE_ARM, name):
                inputs[name] = getattr(self, name)
        return inputs


CARE_ARM = Arm(CARE, "both streams with attention supervision")
_MAIN = (
    Arm("random", "random initialisation, not trained", trained=False),
    Arm(REFERENCE, "the C-stream alone, for as many steps", t_stream=False),
    Arm(
        "c-stream-equal-compute",
        "the C-stream alone, for as long as CARE takes",
        t_stream=False,
        step_share=None,
    ),
    CARE_ARM,
)
_LAMBDA = (
    Arm("lambda-0", "λ = 0: both streams without supervision", attention_weight=0),
    Arm("lambda-1", "λ = 1", attention_weight=1),
    Arm("lambda-10", "λ = 10", attention_weight=10),
    Arm("lambda-250", "λ = 250", attention_weight=250),
)
_BLOCKS = (
    Arm("blocks-2", "2 attention blocks", blocks=2),
    Arm("blocks-3", "3 attention blocks", blocks=3),
    Arm("blocks-4", "4 attention blocks", blocks=4),
    Arm("blocks-6", "6 attention blocks", blocks=6),
)
_POSITIONS = (
    Arm("position-none", "attention without positions", position="none"),
    Arm("position-sin-cos", "fixed absolute positions", position="sin-cos"),
    Arm("position-absolute", "learned absolute positions", position="absolute"),
)
_TAPS = (
    Arm("tap-layer2", "the transformer sees layer2's map", tap="layer2"),
    Arm("tap-layer4", "the transformer sees layer4's map", tap="layer4"),
)
_SEQUENTIAL = Arm(
    "sequential",
    "one stream, the transformer behind its encoder (Sec. 4.3)",
    t_stream=False,
    design="sequential",
    tap="layer4",
)
_READINGS = (
    Arm("detach", "no gradient from the T-stream into the encoder (text)", detach=True),
    Arm(
        "released",
        "absolute positions, blocks that start at random (code)",
        position="absolute",
        zero_gamma=False,
    ),
)
_OBJECTIVES = (
    Arm("objective-simsiam", "SimSiam as the C-stream of CARE", objective="simsiam"),
    Arm("objective-simclr", "SimCLR as the C-stream of CARE", objective="simclr"),
    Arm("objective-moco-v1", "MoCo v1 as the C-stream of CARE", objective="moco-v1"),
    Arm("objective-moco-v2", "MoCo v2 as the C-stream of CARE", objective="moco-v2"),
    Arm("objective-moco-v3", "MoCo v3 as the C-stream of CARE", objective="moco-v3"),
    Arm("objective-swav", "SwAV with two crops as the C-stream of CARE", objective="swav"),
    Arm("objective-barlow-twins", "Barlow Twins as the C-stream of CARE", objective="barlow-twins"),
    Arm("objective-infomin", "InfoMin as the C-stream of CARE", objective="infomin"),
    Arm("objective-pirl", "PIRL as the C-stream of CARE", objective="pirl"),
)
_OBJECTIVES_ALONE = (
    Arm("objective-simsiam-alone", "SimSiam alone", t_stream=False, objective="simsiam"),
    Arm("objective-simclr-alone", "SimCLR alone", t_stream=False, objective="simclr"),
    Arm("objective-moco-v1-alone", "MoCo v1 alone", t_stream=False, objective="moco-v1"),
    Arm("objective-moco-v2-alone", "MoCo v2 alone", t_stream=False, objective="moco-v2"),
    Arm("objective-moco-v3-alone", "MoCo v3 alone", t_stream=False, objective="moco-v3"),
    Arm("objective-swav-alone", "SwAV with two crops alone", t_stream=False, objective="swav"),
    Arm(
        "objective-barlow-twins-alone",
        "Barlow Twins alone",
        t_stream=False,
        objective="barlow-twins",
    ),
    Arm("objective-infomin-alone", "InfoMin alone", t_stream=False, objective="infomin"),
    Arm("objective-pirl-alone", "PIRL alone", t_stream=False, objective="pirl"),
)
# objectives by other recipes of the same method
_RECIPES = (
    Arm(
        "objective-swav-256-alone",
        "SwAV of batch 256 with small crops alone",
        t_stream=False,
        objective="swav-256",
    ),
    Arm(
        "objective-pirl-pycontrast-alone",
        "PIRL of PyContrast alone",
        t_stream=False,
        objective="pirl-pycontrast",
    ),
    Arm(
        "objective-swav-256",
        "SwAV of batch 256 with small crops as the C-stream of CARE",
        objective="swav-256",
    ),
    Arm(
        "objective-pirl-pycontrast",
        "PIRL of PyContrast as the C-stream of CARE",
        objective="pirl-pycontrast",
    ),
)
# of a grid whose encoder is two, such as lab:resnet18-small
_CMC = (
    Arm("objective-cmc-alone", "CMC alone", t_stream=False, objective="cmc"),
    Arm("objective-cmc", "CMC as the C-stream of CARE", objective="cmc"),
)
# of a grid whose encoder is a ViT
_VITS_ALONE = (
    Arm("objective-byol-vit-alone", "BYOL of ViT", t_stream=False, objective="byol-vit"),
    Arm("objective-moco-v3-vit-alone", "MoCo v3 of ViT", t_stream=False, objective="moco-v3-vit"),
)
_ALL = (
    *_MAIN,
    *_LAMBDA,
    *_BLOCKS,
    *_POSITIONS,
    *_TAPS,
    _SEQUENTIAL,
    *_READINGS,
    *_OBJECTIVES,
    *_OBJECTIVES_ALONE,
    *_RECIPES,
    *_CMC,
    *_VITS_ALONE,
)
ARMS = {arm.name: arm for arm in _ALL}
# one of the paper's tables each, with CARE itself where its value stands among the others
GROUPS: dict[str, tuple[Arm, ...]] = {
    "main": _MAIN,
    "lambda": (*_LAMBDA[:3], CARE_ARM, *_LAMBDA[3:]),
    "blocks": (*_BLOCKS[:3], CARE_ARM, *_BLOCKS[3:]),
    "positions": (*_POSITIONS, CARE_ARM),
    "taps": (_TAPS[0], CARE_ARM, _TAPS[1]),
    "designs": (_SEQUENTIAL, CARE_ARM),
    "readings": (CARE_ARM, *_READINGS),
    "objectives": (ARMS[REFERENCE], CARE_ARM, *_OBJECTIVES_ALONE, *_OBJECTIVES),
    "recipes": _RECIPES,
    "cmc": _CMC,
    "vit": _VITS_ALONE,
}


def chosen_arms(names: Iterable[str]) -> list[Arm]:
    """The arms of these names, and of groups of them, in their order, each once.

    Args:
        names: keys of ``ARMS`` or ``GROUPS``.

    Raises:
        Misuse: There are none, or one of a name is not known.
    """
    arms: dict[str, Arm] = {}
    for name in names:
        for arm in GROUPS.get(name) or (_arm(name),):
            arms[arm.name] = arm
    if not arms:
        raise Misuse(f"wanted arms to compare, got none; choose of {', '.join(ARMS)}")
    return list(arms.values())


def arms_of_objectives(objectives: Iterable[str]) -> list[Arm]:
    """The arms of objectives: each alone, then as the C-stream of CARE where it is of CNNs.

    Args:
        objectives: their names.

    Raises:
        Misuse: One of a name is not known.
    """
    arms = list[Arm]()
    for name in objectives:
        check_objectives((name,))
        arms += [ARMS[arm] for arm in arm_pair(name) if arm in ARMS]
    return arms


def arm_pair(objective: str) -> tuple[str, str]:
    """The arms of an objective alone and as the C-stream of CARE, by their names."""
    if objective == BYOL:
        return REFERENCE, CARE
    return f"objective-{objective}-alone", f"objective-{objective}"


def _arm(name: str) -> Arm:
    """The arm of a name, or an error that names those that are alike."""
    if name in ARMS:
        return ARMS[name]
    alike = get_close_matches(name, (*ARMS, *GROUPS), 3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
    groups = f"or groups of {', '.join(GROUPS)}"
    raise Misuse(f"wanted arms of {', '.join(ARMS)}, {groups}; got {name!r}{hint}")
