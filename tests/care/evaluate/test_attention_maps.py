"""Maps of where an encoder looks, beside hooks, NumPy and the package ``grad-cam``."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from care import CareError, TappedEncoder, build_encoder, resnet18
from care.evaluate.attention_maps import attention_map, class_map, eigen_map, norm_map


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return resnet18(small=True, half=True).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def shown(cam, size):
    """A map at the images' size, its mean 1."""
    cam = F.interpolate(cam.clamp_min(0)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return torch.stack([of_image / of_image.mean() for of_image in cam])


def test_at_the_last_stage_it_is_the_features_times_the_map(encoder, images):
    """∂(½‖f‖²)/∂h is f over the number of pixels, with f the mean of h: Grad-CAM is Σ f·h."""
    cam = attention_map(encoder, images)
    with torch.no_grad():
        h = encoder.maps(images)["layer4"]
        f = encoder(images).features
    torch.testing.assert_close(
        cam, shown(torch.einsum("bc,bchw->bhw", f, h), (48, 64)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("stage", ["layer1", "layer2", "layer3"])
def test_at_other_stages_it_is_grad_cam_by_hooks(encoder, images, stage):
    kept = {}

    def keep(module, args, out):
        kept["map"] = out
        out.register_hook(lambda gradient: kept.update(gradient=gradient))

    handle = getattr(encoder, stage).register_forward_hook(keep)
    score = sum(f.dot(f) / 2 for f in encoder(images).features)
    score.backward()
    handle.remove()
    encoder.zero_grad()
    want = torch.zeros_like(kept["map"][:, 0])
    for channel in range(kept["map"].shape[1]):
        weight = kept["gradient"][:, channel].mean((1, 2))
        want += weight[:, None, None] * kept["map"][:, channel].detach()
    torch.testing.assert_close(
        attention_map(encoder, images, stage=stage), shown(want, (48, 64)), rtol=1e-3, atol=1e-4
    )


def test_a_map_has_the_images_size_and_mean_1(encoder, images):
    cam = attention_map(encoder, images)
    assert cam.shape == (3, 48, 64)
    assert cam.min() >= 0
    torch.testing.assert_close(cam.mean((1, 2)), torch.ones(3))
    assert cam.std() > 0.01


def test_each_images_map_is_its_own(encoder, images):
    torch.testing.assert_close(
        attention_map(encoder, images)[1:2],
        attention_map(encoder, images[1:2]),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_traces(encoder, images, training):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():  # it needs gradients and turns them on for itself
        cam = attention_map(encoder.train(training), images)
    assert encoder.training == training
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert not images.requires_grad
    assert not cam.requires_grad


def test_all_kinds_have_the_images_size_and_mean_1(encoder, images):
    for kind in ("grad-cam", "eigen-cam", "norm"):
        cam = attention_map(encoder, images, kind=kind, stage="layer3")
        assert cam.shape == (3, 48, 64)
        assert cam.min() >= 0
        torch.testing.assert_close(cam.mean((1, 2)), torch.ones(3))


def test_a_stage_that_is_not_there_is_refused_with_those_that_are(encoder, images):
    for kind in ("grad-cam", "eigen-cam"):
        with pytest.raises(CareError, match=r"no stage 'layer9'.*layer1, layer2, layer3, layer4"):
            attention_map(encoder, images, kind=kind, stage="layer9")


def test_an_eigen_map_is_the_projection_on_the_first_eigenvector_of_the_covariance():
    activations = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(2))
    maps = eigen_map(activations)
    for of_image, values in zip(maps, activations.double().numpy(), strict=True):
        cells = values.reshape(5, -1).T
        _, vectors = np.linalg.eigh(np.cov(cells.T))
        projection = (cells - cells.mean(0)) @ vectors[:, -1]
        strengths = np.sqrt((cells**2).sum(1))
        if projection @ strengths < 0:
            projection = -projection
        np.testing.assert_allclose(of_image.numpy().ravel(), np.maximum(projection, 0), atol=1e-5)


def test_an_eigen_map_is_high_where_an_object_is_and_of_one_colour_nowhere():
    activations = torch.zeros(1, 3, 5, 5)
    activations[:, :, 1:3, 1:3] = torch.tensor([3.0, 1, 2])[:, None, None]
    (cam,) = eigen_map(activations)
    assert (cam > 0).equal(activations[0].any(0))
    assert eigen_map(torch.ones(1, 3, 5, 5)).abs().max() < 1e-5


def test_a_norm_map_is_the_length_of_each_cell():
    activations = torch.tensor([3.0, 4]).view(1, 2, 1, 1) * torch.tensor([1.0, 2])
    assert norm_map(activations).tolist() == [[[5, 10]]]


def test_a_class_map_at_the_last_stage_is_the_class_activation_map(encoder, images):
    """Zhou et al. 2016: behind a mean over positions it is the weighted sum of the channels."""
    weights = torch.randn(3, encoder.features, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        h = encoder.maps(images)["layer4"]
    want = shown(torch.einsum("bc,bchw->bhw", weights, h), (48, 64))
    torch.testing.assert_close(class_map(encoder, images, weights), want, rtol=1e-3, atol=1e-4)
    assert all(p.grad is None for p in encoder.parameters())


def test_a_class_map_of_any_cnn_follows_its_own_features():
    """Whatever is between the last map and the features, such as MobileNet's classifier, counts."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small()
    encoder = TappedEncoder(model, "features.8").eval()
    images = torch.randn(2, 3, 64, 64)
    weights = torch.randn(2, encoder.features)
    kept = {}

    def keep(module, args, out):
        kept["map"] = out
        out.register_hook(lambda gradient: kept.update(gradient=gradient))

    handle = model.get_submodule(encoder.stages[-1]).register_forward_hook(keep)
    (encoder(images).features * weights).sum().backward()
    handle.remove()
    channels = kept["gradient"].mean((2, 3))
    want = shown(torch.einsum("bc,bchw->bhw", channels, kept["map"].detach()), (64, 64))
    torch.testing.assert_close(class_map(encoder, images, weights), want, rtol=1e-3, atol=1e-4)
    with pytest.raises(CareError, match="no stage 'x'"):
        class_map(encoder, images, weights, stage="x")


def test_a_class_map_of_a_vision_transformer_is_refused():
    encoder = build_encoder("vit-tiny8")
    with pytest.raises(CareError, match="wants a CNN"):
        class_map(encoder, torch.zeros(1, 3, 32, 32), torch.zeros(1, encoder.features))


class Classifier(nn.Module):
    """A linear classifier on an encoder, as the package wants it."""

    def __init__(self, encoder, weights):
        super().__init__()
        self.encoder = encoder
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        return self.encoder(images).features @ self.weights.T


def between_0_and_1(maps):
    lowest = maps.amin((1, 2), keepdim=True)
    highest = maps.amax((1, 2), keepdim=True)
    return ((maps - lowest) / (highest - lowest)).numpy()


@pytest.mark.parametrize("stage", ["layer2", "layer3", "layer4"])
def test_class_maps_and_eigen_maps_are_those_of_the_package_grad_cam(encoder, images, stage):
    package = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    weights = torch.randn(4, encoder.features, generator=torch.Generator().manual_seed(3))
    model = Classifier(encoder, weights)
    layers = [getattr(encoder, stage)]
    labels = [0, 3, 1]
    cam = package.GradCAM(model=model, target_layers=layers)
    want = cam(images, targets=[ClassifierOutputTarget(label) for label in labels])
    maps = class_map(encoder, images, weights[labels], stage=stage)
    np.testing.assert_allclose(between_0_and_1(maps), want, atol=2e-3)
    eigen = package.EigenCAM(model=model, target_layers=layers)
    activations = encoder.maps(images)[stage].detach()
    projections = eigen.get_cam_image(images, layers[0], None, activations.numpy(), None, False)
    for of_image, projection in zip(eigen_map(activations).numpy(), projections, strict=True):
        # a component has no sign: the package's may be the other one
        either = (np.maximum(projection, 0), np.maximum(-projection, 0))
        nearest = min(np.abs(of_image - signed).max() for signed in either)
        assert nearest < 1e-3 * of_image.max()
