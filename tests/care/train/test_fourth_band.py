"""Images of four bands, such as red, green, blue and near infrared, from views to evaluations."""

import numpy as np
import pytest
import torch
from flat import gathered
from PIL import Image
from small_runs import SETTINGS, CrashError, crash, make_streams, result
import shards
from care import BYOL, ENCODERS, CareError, build_encoder, c_stream_for, resnet18
from care.encoded import InputNormalisation, bands_of, map_shape
from care.evaluate import Labels, extract, finetune, knn, linear
from care.evaluate.images import centre_crop, centre_crops
from care.train import View, batches, foreign, load_encoder, pretrain
from care.train.forecast import forecast_seconds
from care.train.fourth_band import fit_fourth_band, fourth_band_statistics
from care.train.load import trained_size
from care.train.operation_pixels import OF_ALL_BANDS, apply_operations
from care.train.operations import Operation
from care.train.photometrics import apply_photometrics, crop, normalize
from care.train.run import Run
from care.train.supervised import supervised_network
from care.train.views import VIEWS

RGBN = "resnet18-small-half-rgbn"


def near_infrared(number):
    """A smooth band that is like no colour of the image, from 40 to 200."""
    columns = np.linspace(40, 200, 40)[None, :] * np.ones((40, 1))
    return np.roll(columns, number, axis=1).astype(np.uint8)


@pytest.fixture(scope="module")
def four_set(tmp_path_factory, make_image):
    """A shard set of 16 images of 40 px in two classes, of four bands."""
    root = tmp_path_factory.mktemp("four")
    for number in range(16):
        folder = root / "photos" / ("field", "water")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        bands = [*make_image(number).split(), Image.fromarray(near_infrared(number))]
        Image.merge("RGBA", bands).save(folder / f"{number}.png")
    shards.build(root / "photos", root / "set", shard_size=10, workers=1, bands=(1, 2, 3, 4))
    return shards.open(root / "set")


def train(data, run, **changes):
    c, t = make_streams(encoder=RGBN)
    return pretrain(data, run, c, t, **gathered(SETTINGS | {"steps": 4} | changes))


@pytest.fixture(scope="module")
def four_run(four_set, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train(four_set, run)
    return run


def test_colours_are_changed_as_of_three_bands_and_the_fourth_is_only_blurred(four_set):
    crops, numbers = [], []
    for sample in range(6):
        parameters = VIEWS[sample % 2].draw(0, 0, sample, sample % 2)
        crops.append(torch.from_numpy(crop(np.array(four_set.image(sample)), parameters, 24)))
        numbers.append(torch.from_numpy(parameters.colour))
    four, parameters = torch.stack(crops), torch.stack(numbers)
    got = apply_photometrics(four, parameters)
    torch.testing.assert_close(
        got[:, :3], apply_photometrics(four[:, :3].contiguous(), parameters), rtol=0, atol=1e-6
    )
    blur_alone = parameters.clone()
    blur_alone[:, :4] = -1
    blur_alone[:, 9:] = 0
    of_three = apply_photometrics(four[:, 3:].repeat(1, 3, 1, 1), blur_alone)
    mean, std = torch.tensor([0.485, 0.229])
    torch.testing.assert_close(got[:, 3], of_three[:, 0] * std + mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in Operation if kind != Operation.NONE])
def test_operations_move_the_fourth_band_and_change_no_colour_of_it(four_set, kind):
    amount = {Operation.ROTATE: 20.0, Operation.POSTERIZE: 3.0}.get(kind, 0.4)
    x = torch.from_numpy(np.array(four_set.image(2))).permute(2, 0, 1)[None] / 255
    operations = torch.tensor([[[float(kind), amount]]])
    got = apply_operations(x.clone(), operations)
    torch.testing.assert_close(got[:, :3], apply_operations(x[:, :3].clone(), operations))
    if kind not in OF_ALL_BANDS:
        assert torch.equal(got[:, 3], x[:, 3])
        return
    want = apply_operations(x[:, 3:].repeat(1, 3, 1, 1), operations)[:, 0]
    # the three have another fill than the fourth, which is seen where something came in
    came_in = (want - torch.tensor(124 / 255)).abs() < 1e-6
    torch.testing.assert_close(got[:, 3][~came_in], want[~came_in])
    assert not torch.equal(got[:, 3], x[:, 3])


def test_a_crop_cuts_all_bands_alike(four_set):
    image = np.array(four_set.image(3))
    parameters = View().draw(0, 0, 3, 0)
    fourth_alone = np.repeat(image[..., 3:], 3, axis=2)
    got = crop(image, parameters, 24)
    assert got.shape == (4, 24, 24)
    np.testing.assert_array_equal(got[:3], crop(image[..., :3].copy(), parameters, 24))
    np.testing.assert_array_equal(got[3], crop(fourth_alone, parameters, 24)[0])


def test_centre_crops_take_no_band_for_transparency(four_set):
    image = four_set.image(3)
    got = np.asarray(centre_crop(image, 24))
    colours = image.convert("RGB")
    np.testing.assert_array_equal(got[..., :3], centre_crop(colours, 24))
    fourth = Image.fromarray(np.asarray(image)[..., 3])
    np.testing.assert_array_equal(got[..., 3], centre_crop(fourth, 24))
    (pixels,) = centre_crops(four_set, [[3]], size=24)
    assert pixels.shape == (1, 4, 24, 24)
    torch.testing.assert_close(pixels[0, 3], torch.from_numpy(got[..., 3] / 255).float())
    torch.testing.assert_close(
        pixels[:, :3], normalize(torch.from_numpy(got[..., :3]).permute(2, 0, 1)[None] / 255)
    )


def test_patches_have_all_bands(four_set):
    views = (View(size=24, patch=6),)
    ((_, (patches,)),) = batches(four_set, size=16, batch_size=4, steps=1, views=views, workers=0)
    assert patches.shape == (4, 9, 4, 6, 6)


def test_the_fourth_band_is_normalised_by_that_of_the_set(four_set, four_run):
    values = np.stack([near_infrared(number) for number in range(16)]) / 255
    assert fourth_band_statistics(four_set) == pytest.approx((values.mean(), values.std()))
    step = load_encoder(four_run).input
    assert isinstance(step, InputNormalisation)
    fourth = torch.from_numpy(values).float()[:, None]
    images = torch.cat((torch.randn(16, 3, 40, 40), fourth), dim=1)
    seen = step(images)
    assert torch.equal(seen[:, :3], images[:, :3])
    assert float(seen[:, 3].mean()) == pytest.approx(0, abs=1e-4)
    assert float(seen[:, 3].std(unbiased=False)) == pytest.approx(1, abs=1e-4)


def test_a_constant_band_stays_finite(four_set, monkeypatch):
    plain = Image.merge("RGBX", [Image.new("L", (8, 8), 7)] * 4)
    monkeypatch.setattr(shards.ShardSet, "image", lambda self, number: plain)
    encoder = build_encoder(RGBN)
    fit_fourth_band(encoder, four_set)
    assert fourth_band_statistics(four_set) == pytest.approx((7 / 255, 1 / 255))
    assert encoder.input.scale.isfinite().all()


def test_a_run_that_was_broken_off_ends_with_the_same_bits(
    four_set, four_run, tmp_path, monkeypatch
):
    record = Run.record
    monkeypatch.setattr(
        Run,
        "record",
        lambda self, step, *more, **note: (
            crash() if step == 3 else record(self, step, *more, **note)
        ),
    )
    with pytest.raises(CrashError):
        train(four_set, tmp_path / "run")
    monkeypatch.undo()
    train(four_set, tmp_path / "run")
    assert result(tmp_path / "run") == result(four_run)


def test_evaluations_see_four_bands(four_set, four_run, tmp_path):
    encoder = load_encoder(four_run / "encoder.safetensors")
    assert (encoder.name, bands_of(encoder), trained_size(four_run)) == (RGBN, 4, 16)
    x = extract(encoder, four_set, size=16).x
    with torch.no_grad():
        (images,) = centre_crops(four_set, [[*range(16)]], size=16)
        torch.testing.assert_close(x, encoder(images).features, rtol=1e-4, atol=1e-5)
        images[:, 3] += 0.5
        assert not torch.allclose(x, encoder(images).features, atol=1e-3)
    assert knn(encoder, four_set, four_set).measures["top1"] > 0
    few = {"epochs": 1, "lrs": (0.1,), "batch_size": 8}
    assert linear(encoder, four_set, four_set, tmp_path / "linear", **few).measures
    settings = {"labels": Labels(fraction=0.5), "lrs": (0.1,), "epochs": (1,), "batch_size": 4}
    assert finetune(encoder, four_set, four_set, tmp_path / "finetune", **settings).measures
    assert load_encoder(tmp_path / "finetune").input.scale.equal(encoder.input.scale)


def test_an_encoder_goes_on_from_another_ones_weights_with_its_numbers(
    four_set, four_run, tmp_path
):
    train(four_set, tmp_path / "run", init=four_run, steps=1)
    scales = [load_encoder(run).input.scale for run in (four_run, tmp_path / "run")]
    assert scales[0].equal(scales[1])


@pytest.mark.parametrize("name", ["resnet18-small-half", "lab:resnet18-small-half"])
def test_an_encoder_of_three_bands_refuses_four_in_a_line(four_set, tmp_path, name):
    said = f"{name} takes images of 3 bands, got 4; choose an encoder of as many bands, such as"
    with pytest.raises(CareError, match=said):
        knn(build_encoder(name), four_set, four_set, size=16)
    c = c_stream_for(name, objective=BYOL(hidden=16))
    with pytest.raises(CareError, match=said):
        pretrain(four_set, tmp_path / "run", c, **gathered(SETTINGS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["torchvision:resnet18:layer3", "vit-tiny8"])
def test_so_do_encoders_of_libraries_and_vits(four_set, name):
    if name.startswith("vit"):
        pytest.importorskip("timm")
    with pytest.raises(CareError, match=f"{name} takes images of 3 bands, got 4"):
        extract(build_encoder(name), four_set, size=32)


def test_an_encoder_of_four_bands_refuses_three_in_a_line(data, tmp_path):
    said = f"{RGBN} takes images of 4 bands, got 3; build the set with --bands 1,2,3,4"
    with pytest.raises(CareError, match=said):
        knn(build_encoder(RGBN), data, data, size=16)
    with pytest.raises(CareError, match=said):
        train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_and_other_peoples_pixels_are_of_three_bands(four_run):
    with pytest.raises(CareError, match=r"have four bands; supervised:resnet18 takes a set of"):
        supervised_network("resnet18-rgbn")
    with pytest.raises(CareError, match="give none"):
        load_encoder(four_run, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with pytest.raises(CareError, match="wanted a ResNet of colours"):
        build_encoder(f"lab:{RGBN}")


def test_a_file_of_others_with_four_bands_is_not_taken_for_one_of_ours(tmp_path, monkeypatch):
    few = {name: ENCODERS[name] for name in ("resnet18", "resnet18-gray", "resnet18-rgbn")}
    monkeypatch.setattr(foreign, "ENCODERS", few)
    state = resnet18(bands=4).state_dict()
    others = {name: tensor for name, tensor in state.items() if not name.startswith("input.")}
    torch.save(others, tmp_path / "theirs.pth")
    with pytest.raises(CareError, match=r"conv1\.weight"):
        load_encoder(tmp_path / "theirs.pth")


def test_maps_threads_and_forecasts_have_four_bands():
    assert map_shape(build_encoder(RGBN), 16) == (128, 2, 2)
    c, t = make_streams(encoder=RGBN)
    assert forecast_seconds(c, t, images=2, size=16) > 0
