"""An export has the encoder's features in the library that it is for, or is not there."""

import json
import re
import sys
import fsspec
import numpy as np
import pytest
import torch
from evaluation_rows import DIGESTS, evaluation
from PIL import Image
from safetensors.torch import load_file
from care.encoders import LUMA
from care.errors import CareError
from care.evaluate.images import centre_crop
from care.export import FORMS, encoder_export, export_encoder
from care.train import load_encoder
from care.train.input_normalisation import expect_pixels
from care.train.photometrics import normalize
from care.train.weights import digest_of
from shards import storage

SIZE = 32


def needs(module):
    return pytest.importorskip(module, reason=f"{module} is not installed")


def crops(count=2, size=SIZE):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def pixels_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def features(source, pixels):
    with torch.no_grad():
        return load_encoder(source)(normalize(pixels)).features


def assert_close(got, wanted):
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def code_of_card(folder):
    """The Python that a card tells its reader to run there."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    return code.replace('"local-dir:FOLDER"', f'"local-dir:{folder}"').replace(
        '"FOLDER"', f'"{folder}"'
    )


def run_card(folder, monkeypatch, **names):
    monkeypatch.chdir(folder)
    exec(code_of_card(folder), names)  # as its reader does
    return names


@pytest.mark.parametrize("name", ["resnet18", "resnet18-small", "resnet18-cifar-gray"])
def test_torchvision_loads_by_the_lines_of_the_card(make_file, tmp_path, monkeypatch, name):
    source = make_file(name)
    exported = export_encoder(source, tmp_path / "out", to="torchvision")
    assert exported.checked.by.startswith("torchvision ")
    names = run_card(tmp_path / "out", monkeypatch)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    prepared = names["prepare"](image)[None]
    own = normalize(pixels_of(centre_crop(image, SIZE)))
    assert torch.allclose(prepared, own, atol=1e-6)
    with torch.no_grad():
        assert_close(names["model"](prepared), load_encoder(source)(own).features)


@pytest.mark.parametrize("to", ["torchvision", "timm"])
@pytest.mark.parametrize("shape", [(90, 70), (200, 70)])
def test_rectangular_crops_keep_the_shape_of_what_is_seen(
    make_file, make_image, tmp_path, monkeypatch, to, shape
):
    needs(to)
    export_encoder(make_file("resnet18", size="32x64"), tmp_path / "out", to=to)
    names = run_card(tmp_path / "out", monkeypatch)
    image = make_image(0, shape)
    prepared = names["prepare"](image)[None]
    own = normalize(pixels_of(centre_crop(image, "32x64")))
    assert prepared.shape == (1, 3, 32, 64)
    difference = (prepared - own).abs()
    if to == "torchvision":
        assert difference.max() <= 1e-6
    else:  # which rounds the sides of what is covered in another way: a pixel
        assert difference.mean() <= 0.1


def test_any_model_of_torchvision_goes_back_without_its_classifier(
    make_file, tmp_path, monkeypatch
):
    source = make_file("torchvision:shufflenet_v2_x0_5:stage4")
    export_encoder(source, tmp_path / "out", to="torchvision")
    names = run_card(tmp_path / "out", monkeypatch)
    with torch.no_grad():
        assert_close(names["model"](normalize(crops())), features(source, crops()))


@pytest.mark.parametrize("name", ["resnet18-half", "vit-tiny8", "timm:regnetx_002:s4"])
def test_timm_makes_it_of_the_folder(make_file, tmp_path, monkeypatch, name):
    needs("timm")
    source = make_file(name)
    export_encoder(source, tmp_path / "out", to="timm")
    names = run_card(tmp_path / "out", monkeypatch)
    with torch.no_grad():
        assert_close(names["model"](normalize(crops())), features(source, crops()))


def test_timm_prepares_images_as_evaluations_do(make_file, tmp_path, monkeypatch):
    needs("timm")
    source = make_file("resnet18-half", size=60)  # whose short side is rounded up
    export_encoder(source, tmp_path / "out", to="timm")
    names = run_card(tmp_path / "out", monkeypatch)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    own = normalize(pixels_of(centre_crop(image, 60)))
    assert torch.allclose(names["prepare"](image)[None], own, atol=1e-6)


def test_transformers_reads_folder_and_images(make_file, tmp_path, monkeypatch):
    needs("transformers")
    size = 56
    source = make_file("resnet18-half", size=size)
    export_encoder(source, tmp_path / "out", to="hf")
    # its corner is a pixel elsewhere where the rest is odd: not of a square of 64 px
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    names = run_card(tmp_path / "out", monkeypatch, images=[image])
    own = normalize(pixels_of(centre_crop(image, size)))
    prepared = names["prepare"](image, return_tensors="pt")["pixel_values"]
    # a level: transformers resizes tensors
    assert (prepared - own).abs().max() <= 1.01 / 255 / 0.224
    with torch.no_grad():
        assert_close(
            names["model"](own).pooler_output.flatten(1), load_encoder(source)(own).features
        )


def test_transformers_reads_the_folder_of_timm_for_a_vit(make_file, tmp_path):
    transformers = needs("transformers")
    source = make_file("vit-tiny8")
    export_encoder(source, tmp_path / "out", to="timm")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert_close(model(normalize(crops())).pooler_output, features(source, crops()))


def test_without_onnx_it_says_how_to_get_it(make_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CareError, match=r"onnx is not installed.* pip install 'care-ssl\[onnx\]'"):
        export_encoder(make_file("resnet18-small-half"), tmp_path / "out", to="onnx")
    assert not (tmp_path / "out").exists()


def test_onnx_takes_pixels_of_any_batch_and_size(make_file, tmp_path):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needs(module)
    import onnxruntime

    source = make_file("resnet18-small-half")
    export_encoder(source, tmp_path / "out", to="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for count, size in ((1, SIZE), (3, 48)):
        pixels = crops(count, size)
        got, tapped = session.run(None, {"pixels": pixels.numpy()})
        assert_close(torch.from_numpy(got), features(source, pixels))
        with torch.no_grad():
            assert_close(torch.from_numpy(tapped), load_encoder(source)(normalize(pixels)).map)


def test_detectron2_gets_its_names_and_what_they_ask_for(make_file, tmp_path):
    source = make_file("resnet18")
    exported = export_encoder(source, tmp_path / "out", to="detectron2")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert weights["res5.1.conv2.norm.running_mean"].shape == (512,)
    assert len(weights) == len(load_encoder(source).state_dict())
    settings = (tmp_path / "out" / "detectron2.yaml").read_text()
    assert "PIXEL_MEAN: [123.675, 116.28, 103.53]" in settings
    assert "RES2_OUT_CHANNELS: 64" in settings
    assert "detectron2 itself" in exported.checked.text
    assert "was not asked" in (tmp_path / "out" / "README.md").read_text()
    # the package reads these names, too
    assert_close(features(f"{tmp_path}/out/model.safetensors", crops()), features(source, crops()))


def test_safetensors_are_the_encoder_to_the_bit(make_file, tmp_path):
    source = make_file("lab:resnet18-small-half")
    export_encoder(source, tmp_path / "out", to="safetensors")
    copy = load_encoder(tmp_path / "out" / "encoder.safetensors")
    assert digest_of(copy) == digest_of(load_encoder(source))
    assert copy.size == SIZE


def test_gray_is_in_the_first_convolution(make_file, tmp_path):
    source = make_file("resnet18-gray")
    export_encoder(source, tmp_path / "out", to="torchvision")
    weights = load_file(tmp_path / "out" / "model.safetensors")["conv1.weight"]
    own = load_encoder(source).state_dict()["conv1.weight"]
    assert weights.shape == (64, 3, 7, 7)
    assert torch.allclose(weights, own * torch.tensor(LUMA)[:, None, None])
    assert "three equal channels" in (tmp_path / "out" / "README.md").read_text()


def test_pixels_of_others_are_told_in_their_numbers(make_file, tmp_path):
    half = (0.5, 0.5, 0.5)
    source = make_file("resnet18", prepare=lambda encoder: expect_pixels(encoder, half, half))
    export_encoder(source, tmp_path / "out", to="torchvision")
    facts = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert (facts["mean"], facts["std"]) == ([0.5] * 3, [0.5] * 3)
    assert (facts["resize_to_cover"], facts["centre_crop"]) == ([37, 37], [32, 32])


def test_the_card_has_results_of_this_encoder_alone(make_file, tmp_path):
    source = make_file("resnet18-small-half")
    digests = DIGESTS | {"encoder": digest_of(load_encoder(source))}
    rows = [evaluation(top1=61.25, digests=digests), evaluation(encoder="other", top1=12.5)]
    storage.write_json(tmp_path / "judged" / "results.json", {"evaluations": rows})
    export_encoder(
        source,
        tmp_path / "out",
        to="safetensors",
        judged=str(tmp_path / "judged"),
        license_id="cc-by-4.0",
    )
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert "61.2" in text
    assert "12.5" not in text
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [row["top1"] for row in record["evaluations"]] == [61.25]
    assert record["digests"]["encoder"] == digests["encoder"]


def test_a_url_is_a_place_too(make_file):
    exported = export_encoder(
        make_file("resnet18-small-half"), "memory://exports/r18", to="safetensors"
    )
    assert storage.listing("memory://exports/r18").keys() == {*exported.files}
    with pytest.raises(CareError, match="is there already"):
        export_encoder("random:resnet18", "memory://exports/r18", to="safetensors")
    fsspec.filesystem("memory").rm("/exports", recursive=True)


def test_what_differs_is_not_left(make_file, tmp_path, monkeypatch):
    form = FORMS["safetensors"]

    def load_wrongly(folder, preprocessing):
        read = form.load(folder, preprocessing)
        return lambda pixels: read(pixels) * 1.0001

    changed = FORMS | {"safetensors": form._replace(load=load_wrongly)}
    monkeypatch.setattr(encoder_export, "FORMS", changed)
    with pytest.raises(CareError, match=r"differ by 0\.0001 of the largest, wanted at most 1e-05"):
        export_encoder(make_file("resnet18-small-half"), tmp_path / "out", to="safetensors")
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_missing_is_told_and_not_asked(make_file, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_export, "find_spec", lambda name: None)
    exported = export_encoder(make_file("resnet18-half"), tmp_path / "out", to="hf")
    assert exported.checked.by == ""
    assert "pip install 'care-ssl[hf]'" in exported.checked.text
    assert "not verified" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("resnet18-small-half", "torchvision", "--to onnx or safetensors$"),
        ("resnet18-small", "timm", "3×3 stem .*--to torchvision or onnx or safetensors$"),
        ("resnet50x2", "hf", "wide 3×3 .*torchvision or timm or detectron2 or onnx"),
        ("vit-tiny8", "detectron2", "only its ResNets"),
        ("lab:resnet18-small-half", "torchvision", "no model of it"),
        ("resnet18-small-half-rgbn", "safetensors", "four bands, .*RUN/encoder.safetensors"),
    ],
)
def test_what_a_library_has_no_place_for_is_refused(tmp_path, name, to, message):
    with pytest.raises(CareError, match=message):
        export_encoder(f"random:{name}", tmp_path / "out", to=to)
    assert not (tmp_path / "out").exists()


def test_wrong_places_and_licenses_are_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(CareError, match="is there already; give another folder"):
        export_encoder("nowhere", tmp_path / "out", to="onnx")
    with pytest.raises(CareError, match="identifier of a license"):
        export_encoder("nowhere", tmp_path / "new", to="onnx", license_id="My Own!")
    with pytest.raises(CareError, match="judged does not exist"):
        export_encoder("nowhere", tmp_path / "new", to="onnx", judged=str(tmp_path / "judged"))
    with pytest.raises(CareError, match="nowhere does not exist"):
        export_encoder("nowhere", tmp_path / "new", to="onnx")


def test_the_folder_of_a_pipeline_is_its_encoder(make_file, tmp_path):
    source = make_file("resnet18-small-half")
    digest = digest_of(load_encoder(source))
    storage.copy(source, tmp_path / "lab" / "encoder.safetensors")
    content = {
        "encoder": {"name": "resnet18-small-half", "size": SIZE, "sha256": "f" * 64},
        "settings": {"steps": 250, "batch_size": 32},
        "seed": 3,
        "evaluations": [evaluation(top1=41.5, digests=DIGESTS | {"encoder": digest})],
    }
    storage.write_json(tmp_path / "lab" / "results.json", content)
    export_encoder(str(tmp_path / "lab"), tmp_path / "out", to="safetensors")
    assert digest_of(load_encoder(tmp_path / "out" / "encoder.safetensors")) == digest
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| length | 250 steps of 32 images |" in text
    assert "41.5" in text
    assert "f" * 64 not in text  # of a file that is not there
