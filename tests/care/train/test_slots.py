"""Every slot of an optimizer comes back, whatever it is called and wherever it is kept."""

import copy
import pytest
import torch
from torch import nn
from care import CareError
from care.train.slots import restore_slots, slots_of

MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "no-momentum": lambda p: torch.optim.SGD(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "adadelta": torch.optim.Adadelta,
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
}


def make_model():
    torch.manual_seed(0)
    layers = {"conv/1": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    return nn.ModuleDict(layers).to(memory_format=torch.channels_last)


def take_step(model, optimizer, seed):
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
    optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_an_optimizer_goes_on_from_its_slots_to_the_same_bits(name):
    model = make_model()
    optimizer = MAKERS[name](model.parameters())
    for step in range(3):
        take_step(model, optimizer, step)
    slots = {key: value.contiguous().clone() for key, value in slots_of(model, optimizer).items()}
    other = copy.deepcopy(model)
    again = MAKERS[name](other.parameters())
    take_step(copy.deepcopy(other), again, 9)  # of nobody: leaves no slots of these parameters
    restore_slots(slots, other, again)
    for step in range(3, 6):
        take_step(model, optimizer, step)
        take_step(other, again, step)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_momenta_have_the_names_of_their_parameters_and_other_slots_one_behind():
    model = make_model()
    optimizer = MAKERS["adamw"](model.parameters())
    take_step(model, optimizer, 0)
    names = {name for name, _ in model.named_parameters()}
    of_each = ("step", "exp_avg", "exp_avg_sq")
    assert slots_of(model, optimizer).keys() == {f"{n}/{slot}" for n in names for slot in of_each}
    sgd = MAKERS["sgd"](model.parameters())
    take_step(model, sgd, 0)
    assert slots_of(model, sgd).keys() == names


def test_slots_of_a_parameters_shape_have_its_memory_format():
    model = make_model()
    optimizer = MAKERS["adamw"](model.parameters())
    take_step(model, optimizer, 0)
    slots = {key: value.contiguous().clone() for key, value in slots_of(model, optimizer).items()}
    restore_slots(slots, model, optimizer)
    weight = model["conv/1"].weight
    assert optimizer.state[weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)


class Counting(torch.optim.Optimizer):
    """Keeps numbers of Python's, as older optimizers do, and perhaps something else."""

    def __init__(self, parameters, keeps=None):
        super().__init__(parameters, {"lr": 0.1})
        self.keeps = keeps

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                state["share"] = 0.1 + state["count"]
                state["buffer"] = None
                if self.keeps is not None:
                    state["kept"] = self.keeps


def test_numbers_come_back_as_numbers():
    model = make_model()
    optimizer, again = Counting(model.parameters()), Counting(model.parameters())
    optimizer.step()
    restore_slots(slots_of(model, optimizer), model, again)
    state = again.state[model["norm"].weight]
    assert state == {"count": 1, "share": 1.1}
    assert [type(value) for value in state.values()] == [int, float]


def test_what_no_checkpoint_can_hold_is_refused_by_name():
    model = make_model()
    optimizer = Counting(model.parameters(), keeps="words")
    optimizer.step()
    with pytest.raises(CareError, match=r"Counting keeps, got a str as the kept of conv/1\.weight"):
        slots_of(model, optimizer)
