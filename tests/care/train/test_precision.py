import pytest
import torch
from care import BYOL, streams_for
from care.train import measured_precision as module
from care.train.measured_precision import measured_precisions
from care.train.precision import StreamPrecisions, continued_precision, stream_precision
from shards import storage

CPU = torch.device("cpu")


@pytest.fixture
def streams():
    return streams_for("resnet18-small-half", size=16, blocks=1, objective=BYOL(hidden=16, dim=8))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CARE_CACHE", str(tmp_path / "shards"))
    return tmp_path / "precision"


def have_bfloat16(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})


def measured(streams, **options):
    return measured_precisions(*streams, **{"size": 16, "batch_size": 4} | options)


def test_a_cpu_without_bfloat16_has_one_answer_and_measures_nothing(streams, cache, monkeypatch):
    have_bfloat16(monkeypatch, False)
    assert measured(streams) == ("fp32", "fp32")
    assert not cache.exists()


@pytest.mark.parametrize("faster", [("bf16", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")])
def test_each_stream_takes_what_is_faster_for_it(streams, cache, monkeypatch, faster):
    have_bfloat16(monkeypatch, True)
    asked = []

    def choose(network, forward):
        asked.append(type(network).__name__)
        assert forward().requires_grad
        return faster[len(asked) - 1]

    monkeypatch.setattr(module, "_faster", choose)
    assert measured(streams) == StreamPrecisions(*faster)
    assert asked == ["CStream", "TStream"]


def test_the_faster_one_is_the_one_that_takes_less_time(monkeypatch):
    for seconds, want in (((1.0, 0.5), "bf16"), ((1.0, 0.95), "fp32"), ((1.0, 2.0), "fp32")):
        now = [0.0]
        monkeypatch.setattr(module.time, "perf_counter", lambda now=now: now[0])
        weight = torch.nn.Linear(2, 2)

        def forward(seconds=seconds, now=now, weight=weight):
            now[0] += seconds[torch.is_autocast_enabled("cpu")]
            return weight(torch.ones(1, 2)).float().sum()

        assert module._faster(weight, forward) == want


def test_a_finding_is_kept_for_the_same_networks_on_this_machine(streams, cache, monkeypatch):
    have_bfloat16(monkeypatch, True)
    monkeypatch.setattr(module, "_faster", lambda *_: "bf16")
    assert measured(streams) == ("bf16", "bf16")
    monkeypatch.setattr(module, "_faster", lambda *_: "fp32")
    assert measured(streams) == ("bf16", "bf16")  # the same command, the same precision
    assert measured(streams, size=48) == ("fp32", "fp32")
    assert measured((streams[0], None)) == ("fp32", "fp32")
    for record in cache.iterdir():
        record.write_text("{")  # damaged: measured again
    assert measured(streams) == ("fp32", "fp32")


def test_a_finding_that_cannot_be_kept_is_used(streams, cache, monkeypatch):
    have_bfloat16(monkeypatch, True)
    monkeypatch.setattr(module, "_faster", lambda *_: "bf16")
    cache.write_text("a file where the folder should be")
    assert measured(streams) == ("bf16", "bf16")


def test_measuring_leaves_no_trace(streams, cache, monkeypatch, untouched_generator):
    have_bfloat16(monkeypatch, True)
    before = [{k: v.clone() for k, v in stream.state_dict().items()} for stream in streams]
    assert set(measured(streams)) <= {"bf16", "fp32"}  # this one measures
    for stream, state in zip(streams, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in stream.state_dict().items())
        assert all(parameter.grad is None for parameter in stream.parameters())


def test_float32_inside_of_an_autocast_leaves_it():
    linear, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        (None, torch.bfloat16),
    ):
        with torch.autocast("cpu", torch.bfloat16), stream_precision(CPU, precision) as cast:
            assert linear(cast(linear(x))).dtype == dtype
    with stream_precision(CPU, "fp32") as cast:
        assert cast(x.double()).dtype == torch.float64


def test_bfloat16_without_an_autocast_begins_one():
    linear, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (
        ("bf16", torch.bfloat16),
        ("fp32", torch.float32),
        (None, torch.float32),
    ):
        with stream_precision(CPU, precision) as cast:
            assert linear(cast(x)).dtype == dtype
    with torch.autocast("cpu", enabled=False), stream_precision(CPU, "bf16") as cast:
        assert linear(cast(x)).dtype == torch.bfloat16
    assert linear(x).dtype == torch.float32  # afterwards


def test_a_training_goes_on_in_the_precision_it_began_in(tmp_path, monkeypatch):
    device = torch.device("cpu")
    have_bfloat16(monkeypatch, False)
    assert continued_precision(tmp_path, None, device) == "fp32"
    assert continued_precision(tmp_path, "fp16", device) == "fp16"
    for step, precision in ((3, "fp32"), (11, "bf16")):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        storage.write_json(folder / "manifest.json", {"settings": {"precision": precision}})
    assert continued_precision(tmp_path, None, device) == "bf16"  # emulated it is only slower
    assert continued_precision(tmp_path, "fp32", device) == "fp32"
    (folder / "manifest.json").write_text("{}")
    assert continued_precision(tmp_path, None, device) == "fp32"  # the newest one that can be read
