"""Encoders that a process loads once: what lies at a path may become another one."""

from pathlib import Path
import torch
from care import resnet18
from care.train.weights import digest_of, save_encoder
from flows.works.encoders import loaded_encoder


def test_an_encoder_is_loaded_once_until_its_file_changes(tmp_path: Path, monkeypatch) -> None:
    digests = []
    for number in range(2):
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(number)
        encoder = resnet18(small=True, half=True)
        save_encoder("encoder.safetensors", encoder, size=32)
        first, second = (loaded_encoder("encoder.safetensors", 0) for _ in range(2))
        assert first is second
        assert digest_of(first) == digest_of(encoder)
        digests.append(digest_of(first))
    assert digests[0] != digests[1]


def test_a_random_one_is_known_by_its_name_and_seed() -> None:
    name = "random:resnet18-small-half"
    assert loaded_encoder(name, 0) is loaded_encoder(name, 0)
    assert digest_of(loaded_encoder(name, 0)) != digest_of(loaded_encoder(name, 1))
