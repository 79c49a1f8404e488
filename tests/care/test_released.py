import json
import os
from pathlib import Path
import numpy as np
import pytest
import released
import torch
from care import CareError

# figures of the authors' own code, and the recipe of weights and inputs that they came from
GOLDEN_FILE = Path(__file__).parent.parent / "golden" / "official_resnet50.json"
GOLDEN = json.loads(GOLDEN_FILE.read_text())


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def fill(name, shape, rng):
    """A weight or buffer by the recipe."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if name.endswith(("running_mean", "running_var")):
        return np.full(shape, float(name.endswith("running_var")))
    values = rng.standard_normal(int(np.prod(shape)))
    if len(shape) >= 2:
        return (values * np.sqrt(1 / np.prod(shape[1:]))).reshape(shape)
    return 0.02 * values if name.endswith("bias") else 1 + 0.1 * values


def weights():
    state = {}
    for i, name in enumerate(sorted(GOLDEN["keys"])):
        rng = np.random.RandomState(GOLDEN["recipe"]["base"] + i)
        values = fill(name, tuple(GOLDEN["keys"][name]), rng)
        dtype = torch.int64 if name.endswith("tracked") else torch.float64
        state[name] = torch.tensor(values, dtype=dtype)
    return state


def inputs(step):
    rng = np.random.RandomState(GOLDEN["recipe"]["base"] + 100_000 + step)
    shape = (GOLDEN["recipe"]["batch"], 3, 224, 224)
    return [torch.from_numpy(rng.standard_normal(shape)) for _ in range(2)]


def norms(module, of):
    """Norms over the authors' groups of parameters."""
    groups = {"encoder": [], "trans": [], "fc1": [], "fc2": []}
    for name, parameter in module.named_parameters():
        groups.get(name.partition(".")[0], groups["encoder"]).append(of(parameter).norm())
    return {name: float(torch.stack(values).norm()) for name, values in groups.items()}


@pytest.mark.parity
def test_it_computes_what_the_authors_code_computes(double, capsys):
    torch.set_num_threads(os.cpu_count() or 1)
    recipe = GOLDEN["recipe"]
    model = released.resnet50(total_steps=recipe["total_steps"])
    model.load(weights())
    worst = 0.0

    def compare(what, got, want):
        nonlocal worst
        for a, b in zip(np.ravel(got), np.ravel(want), strict=True):
            assert a == pytest.approx(b, rel=1e-6), what
            worst = max(worst, abs(a / b - 1))

    for want in GOLDEN["trajectory"]:
        loss = model.step(*inputs(want["step"]), lr=recipe["lr"])
        compare(
            "losses",
            [loss.total, loss.cnn, loss.transformer, 100 * loss.attention],
            [want["loss"], want["loss_c"], want["loss_t"], want["lambda_times_att"]],
        )
        for name, embeddings in zip(("q1", "att_q1", "k1", "att_k1"), model.outputs, strict=True):
            compare(name, embeddings[0][0, :8], want[f"{name}_row0_first8"])
        for name, got in (
            ("grad_norm", norms(model.online, lambda p: p.grad)),
            ("online_param_norm", norms(model.online, lambda p: p.detach())),
            ("target_param_norm", norms(model.target, lambda p: p.detach())),
        ):
            assert got.keys() == want[name].keys()
            compare(name, [got[group] for group in want[name]], list(want[name].values()))
    with capsys.disabled():
        print(f"\nlargest relative difference from the authors' code: {worst:.1e}")


@pytest.fixture(scope="module")
def model():
    return released.resnet50(total_steps=10)


def test_the_key_names_are_the_authors(model):
    shapes = {name: list(value.shape) for name, value in model.online.state_dict().items()}
    assert shapes == GOLDEN["keys"]
    predictors = ("fc1.4", "fc1.5", "fc1.7", "fc2.4", "fc2.5", "fc2.7")
    of_target = {name for name in GOLDEN["keys"] if not name.startswith(predictors)}
    assert model.target.state_dict().keys() == of_target


def test_a_new_model_is_the_authors_initialisation(model):
    """The last γ of a block is one, the target a copy."""
    state = model.online.state_dict()
    assert all((state[f"trans.net.{n}.net.8.weight"] == 1).all() for n in range(5))
    assert all(torch.equal(value, state[name]) for name, value in model.target.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "student_encoder.", "module.student_encoder."])
def test_students_load_with_and_without_prefix_and_teachers_beside_them(model, prefix):
    student = {name: torch.full(shape, 2.0) for name, shape in GOLDEN["keys"].items()}
    model.load({prefix + name: value for name, value in student.items()})
    for module in (model.online, model.target):
        assert all((value == 2).all() for value in module.state_dict().values())
    root = prefix.replace("student_encoder.", "")
    teacher = {
        f"{root}teacher_encoder.{name}": torch.full_like(value, 3)
        for name, value in model.target.state_dict().items()
    }
    model.load({prefix + name: value for name, value in student.items()} | teacher)
    assert all((value == 2).all() for value in model.online.state_dict().values())
    assert all((value == 3).all() for value in model.target.state_dict().values())
    assert (model.c.backbone.target.conv1.weight == 3).all()
    assert (model.t.predictor[0].weight == 2).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("fc2.7.bias"), "1 missing .first: fc2.7.bias"),
        (
            lambda state: state.update({"fc3.weight": torch.zeros(1)}),
            "1 unexpected .first: fc3.weight",
        ),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            "1 of another shape .first: conv1.weight",
        ),
        (
            lambda state: state.update({"teacher_encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}),
            "the teacher .* missing",
        ),
    ],
)
def test_a_state_with_other_keys_is_refused_by_name(model, change, says):
    state = {name: torch.zeros(shape) for name, shape in GOLDEN["keys"].items()}
    change(state)
    with pytest.raises(CareError, match=says):
        model.load(state)
