"""ViTs in runs: trained, resumed, loaded from every place, judged like any encoder."""

import os
import signal
import pytest
import timm
import torch
from flat import gathered
from small_runs import SETTINGS, result
import shards
from care import BYOLViT, CareError, MoCoV3ViT, c_stream_for
from care.evaluate import finetune, knn
from care.evaluate.detector import Detector
from care.evaluate.detector_forms import DetectorShape
from care.evaluate.few_labels import Labels
from care.evaluate.images import Crops
from care.evaluate.trial import Classifier
from care.show import attention_map
from care.train import AdamW, Stopped, checkpoint, load_encoder, pretrain
from care.train.supervised import supervised_encoder

SIZE = 16
OBJECTIVES = {"moco-v3": MoCoV3ViT(hidden=32, dim=16), "byol": BYOLViT(hidden=32, dim=16)}


def train(data, run, objective, **changes):
    """A tiny run of MoCo v3's recipe."""
    c = c_stream_for("vit-tiny8", objective=objective)
    settings = SETTINGS | {"size": SIZE, "steps": 4} | changes
    return pretrain(data, run, c, **gathered(settings | {"optimizer": AdamW(lr=0.01)}))


@pytest.fixture(scope="module")
def run(image_set, tmp_path_factory):
    """A finished run of MoCo v3; read only."""

    path = tmp_path_factory.mktemp("vit")
    train(shards.open(image_set), path, OBJECTIVES["moco-v3"])
    return path


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_that_breaks_off_goes_on_to_the_same_bits(data, tmp_path, at_step, name):
    train(data, tmp_path / "through", OBJECTIVES[name])
    at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(data, tmp_path / "broken", OBJECTIVES[name])
    at_step(None, None)
    train(data, tmp_path / "broken", OBJECTIVES[name])
    assert result(tmp_path / "broken") == result(tmp_path / "through")


def test_all_but_the_patches_is_trained_and_the_target_follows(run):
    tensors = checkpoint.latest(run).tensors("model")
    first = c_stream_for("vit-tiny8", objective=OBJECTIVES["moco-v3"]).state_dict()
    moved = {name for name, value in first.items() if not torch.equal(value, tensors[f"c.{name}"])}
    of_encoders = {name for name in moved if name.startswith("backbone.")}
    assert tensors["c.backbone.online.grid"] == tensors["c.backbone.target.grid"] == SIZE // 8
    of_encoders -= {"backbone.online.grid", "backbone.target.grid"}
    expected = {
        name
        for name in first
        if name.startswith("backbone.") and "patch" not in name and "grid" not in name
    }
    assert of_encoders == expected


def test_the_encoder_is_loaded_from_the_run_and_from_its_file(run):
    from_run, from_file = load_encoder(run), load_encoder(run / "encoder.safetensors")
    assert (from_run.name, from_run.size, from_file.size) == ("vit-tiny8", SIZE, SIZE)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(from_run(images).features, from_file(images).features)
    assert from_run.grid == from_file.grid == SIZE // 8


def test_the_file_loads_into_timms_network_strictly_and_has_the_same_features(run):
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=8, num_classes=0, embed_dim=64, depth=2, num_heads=4
    )
    timm.models.load_checkpoint(network, str(run / "encoder.safetensors"))
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        want = network.eval()(images)
        torch.testing.assert_close(load_encoder(run)(images).features, want, rtol=1e-5, atol=1e-6)


def test_it_is_judged_like_any_encoder(run, data):
    encoder = load_encoder(run)
    judged = knn(encoder, data, data, size=SIZE, k=3)
    assert 0 < judged.measures["top1"] <= 100
    maps = attention_map(encoder, torch.randn(2, 3, SIZE, SIZE))
    assert maps.shape == (2, SIZE, SIZE)


def test_fine_tuning_at_another_size_keeps_its_positions(run, data, tmp_path):
    assert all(weight.requires_grad for weight in Classifier(load_encoder(run), 3).parameters())
    finetune(
        load_encoder(run),
        data,
        data,
        tmp_path,
        labels=Labels(fraction=1),
        crops=Crops(size=32),
        lrs=(0.0,),
        head_lrs=(0.1,),
        epochs=(1,),
        precision="fp32",
    )
    tuned = load_encoder(tmp_path)
    assert (tuned.size, int(tuned.grid)) == (32, SIZE // 8)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(tuned(images).features, load_encoder(run)(images).features)


def test_the_target_has_the_size_and_the_positions_of_the_online_network(run, data, tmp_path):
    c = c_stream_for("vit-tiny8", objective=OBJECTIVES["byol"])
    settings = gathered(SETTINGS | {"size": 24, "steps": 1, "optimizer": AdamW()})
    pretrain(data, tmp_path / "drawn", c, **settings)
    online, target = c.backbone.online, c.backbone.target
    assert (online.size, target.size) == (24, 24)
    assert torch.equal(online.positions(3, 3), target.positions(3, 3))
    assert load_encoder(f"{tmp_path}/drawn:target").grid == load_encoder(tmp_path / "drawn").grid
    begun = c_stream_for("vit-tiny8", objective=OBJECTIVES["byol"])
    pretrain(data, tmp_path / "begun", begun, init=run, **settings)
    assert begun.backbone.online.grid == begun.backbone.target.grid == SIZE // 8


def test_detectors_cut_no_stages_of_it_but_build_a_pyramid():
    encoder = load_encoder("random:vit-tiny8")
    with pytest.raises(CareError, match="vit-tiny8 has no stages to cut into the C4 form; use"):
        Detector(encoder, 2, DetectorShape())
    detector = Detector(encoder, 2, DetectorShape(head="fpn", channels=8, hidden=8))
    found = detector.eval()([torch.rand(3, 64, 48)])
    assert found[0]["boxes"].shape[1] == 4


def test_it_starts_from_the_weights_of_another_run(run, data, tmp_path):
    train(data, tmp_path, OBJECTIVES["byol"], steps=1, init=str(run))
    other = c_stream_for("vit-s8", objective=OBJECTIVES["byol"])
    with pytest.raises(CareError, match="wanted initial weights for the encoder vit-s8, got those"):
        pretrain(data, tmp_path / "b", other, steps=1, size=SIZE, batch_size=8, init=run)


def test_labels_have_given_it_no_weights():
    with pytest.raises(CareError, match=r"no ImageNet weights for 'vit-tiny8' \(Unknown model"):
        supervised_encoder("vit-tiny8")
    with pytest.raises(CareError, match="vit-s16 is the name of a network: random:vit-s16 has no"):
        load_encoder("vit-s16")


def moco_v3_checkpoint(encoder, table):
    """As the authors save one: both encoders with their heads, under distributed names."""
    state = {}
    for branch, shift in (("base_encoder", 0.0), ("momentum_encoder", 1.0)):
        tensors = encoder.model.state_dict() | {"pos_embed": table, "head.0.weight": torch.ones(2)}
        state |= {f"module.{branch}.{name}": value + shift for name, value in tensors.items()}
    state["module.momentum_encoder.pos_embed"] = table
    return {"arch": "vit_small", "state_dict": state | {"module.predictor.0.weight": torch.ones(2)}}


def test_a_checkpoint_of_moco_v3_gives_its_features(tmp_path, capsys):
    theirs = load_encoder("random:vit-tiny8")
    table = theirs.position_table()
    torch.save(moco_v3_checkpoint(theirs, table), tmp_path / "vit.pth.tar")
    encoder = load_encoder(f"{tmp_path}/vit.pth.tar:vit-tiny8")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder(images).features, theirs(images).features)
    assert (encoder.name, encoder.size) == ("vit-tiny8", 224)
    assert encoder.assumed.startswith("vit-tiny8 under 'state_dict.module.base_encoder.', as it")
    shifted = load_encoder(f"{tmp_path}/vit.pth.tar:momentum_encoder:vit-tiny8")
    assert torch.equal(shifted.model.cls_token, theirs.model.cls_token + 1)


def test_learned_positions_are_refused(tmp_path):
    theirs = load_encoder("random:vit-tiny8")
    table = theirs.position_table() + 0.1
    torch.save(moco_v3_checkpoint(theirs, table), tmp_path / "vit.pth")
    with pytest.raises(CareError, match=r"fixed sine and cosine .* 224 px in .*\[1, 785, 64\]"):
        load_encoder(f"{tmp_path}/vit.pth:vit-tiny8")
