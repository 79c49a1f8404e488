"""Attention on objects: the record of an encoder on annotated images."""

import numpy as np
import pytest
import torch
from flat import gathered
from PIL import Image
from small_runs import SETTINGS, make_streams
from torchvision import transforms
from care import CareError, build_encoder
from care.evaluate import attention
from care.evaluate.attention_maps import attention_map
from care.evaluate.images import centre_crop
from care.train import pretrain
from care.train.photometrics import normalize
from shards import boxes, scenes

SIZE = 48


@pytest.fixture(scope="module")
def scene_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    scenes.write(folder, count=9, size=64)
    return boxes.load(folder)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder("resnet18-small-half").eval()


def images_and_masks(data):
    images = [data.image(number) for number in range(len(data.pictures))]
    rendered = [scenes.render(0, number, size=64) for number in range(len(images))]
    return images, [np.stack([item.mask for item in scene.objects]) for scene in rendered]


def naive_figures(encoder, image, masks) -> tuple[float, float, float]:
    """Energy inside, area, and how much of the maximum is at most 1 px beside an object."""
    prepare = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    cam = attention_map(encoder, prepare(centre_crop(image, SIZE))[None])[0].numpy()
    gray = Image.fromarray(np.where(masks.any(0), 255, 0).astype(np.uint8))
    weight = np.asarray(centre_crop(gray, SIZE)) / 255
    inside = sum(c * w for c, w in zip(cam.flat, weight.flat, strict=True)) / cam.sum()
    hits = []
    for y, x in np.argwhere(cam >= cam.max() * (1 - 1e-5)):
        crosses = [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inner = [(v, u) for v, u in crosses if 0 <= v < SIZE and 0 <= u < SIZE]
        hits.append(any(weight[place] > 0.5 for place in inner))
    return inside, weight.mean(), np.mean(hits)


def test_of_scenes_its_figures_are_those_of_their_masks(encoder, scene_set) -> None:
    result = attention(encoder, scene_set, size=SIZE)
    scenes_and_masks = zip(*images_and_masks(scene_set), strict=True)
    figures = [naive_figures(encoder, *scene) for scene in scenes_and_masks]
    inside, area, pointing = np.mean(figures, axis=0)
    assert result.measures["inside"] == pytest.approx(100 * inside, abs=2e-3)
    assert result.measures["area"] == pytest.approx(100 * area, abs=2e-3)
    assert result.measures["pointing"] == pytest.approx(100 * pointing, abs=2e-3)
    assert "objects of 9 images by masks" in result.protocol
    assert "label-free Grad-CAM of the last stage, centre crops of 48 px" in result.protocol
    assert len(result.resampled) == 200
    assert next(iter(result.measures)) == "inside"


def test_each_image_has_a_row_of_its_own(encoder, scene_set) -> None:
    lines = attention(encoder, scene_set, size=SIZE).outcomes.files()["attention.csv"].decode()
    head, *rows = lines.splitlines()
    assert head.startswith("key,inside,area,pointing,")
    assert [row.split(",")[0] for row in rows] == [p.path.name for p in scene_set.pictures]


def test_whole_images_of_any_size_are_looked_at_one_by_one(encoder, scene_set) -> None:
    result = attention(encoder, scene_set, crop=False, kind="norm", stage="layer3")
    first = scene_set.image(0)
    pixels = torch.from_numpy(np.array(first)).permute(2, 0, 1)[None].float() / 255
    (cam,) = attention_map(encoder, normalize(pixels), kind="norm", stage="layer3")
    union = scenes.render(0, 0, size=64).objects
    mask = np.any([item.mask for item in union], axis=0)
    want = cam.numpy()[mask].sum() / cam.numpy().sum()
    assert float(result.outcomes.figures.inside[0]) == pytest.approx(want, rel=1e-4)
    assert "norm of the activations of layer3, whole images" in result.protocol


def test_images_without_objects_are_left_out_and_of_none_nothing_is_said(
    encoder, scene_set
) -> None:
    empty = scene_set.pictures[0]._replace(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, bool),
        crowd=np.zeros(0, bool),
        masks=[],
    )
    some = scene_set._replace(pictures=[empty, *scene_set.pictures[1:3]])
    result = attention(encoder, some, size=SIZE)
    assert "1 images without an object in what is shown are left out" in result.protocol
    assert len(result.outcomes.keys) == 2
    with pytest.raises(CareError, match=r"no image of .* shows an object"):
        attention(encoder, scene_set._replace(pictures=[empty]), size=SIZE)


def test_of_a_run_also_what_its_t_stream_attends_to(data, scene_set, tmp_path) -> None:
    c, t = make_streams()
    pretrain(data, tmp_path, c, t, **gathered(SETTINGS | {"steps": 1, "warmup": 0}))
    result = attention(
        c.backbone.online.eval(), scene_set, size=SIZE, kind="t-stream", source=str(tmp_path)
    )
    assert result.protocol.startswith(
        "T-stream: attention of block 1 of 1, mean over 4 heads, mean over all positions"
    )
    assert 0 < result.measures["inside"] < 100
    with pytest.raises(CareError, match="random:resnet18 has no T-stream; wanted a run"):
        attention(c.backbone.online, scene_set, kind="t-stream", source="random:resnet18")


def test_it_changes_no_argument_and_no_global_state(
    encoder, scene_set, untouched_generator
) -> None:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    with untouched_generator():
        first = attention(encoder, scene_set, size=SIZE)
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert first.measures == attention(encoder, scene_set, size=SIZE).measures


def test_processes_that_decode_change_nothing(encoder, scene_set) -> None:
    here = attention(encoder, scene_set, size=SIZE, workers=0)
    there = attention(encoder, scene_set, size=SIZE, workers=1)
    assert here.outcomes.files() == there.outcomes.files()
    assert here.measures == there.measures
