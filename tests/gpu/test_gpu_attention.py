"""Attention on a GPU: which kernel computes it, and whether maps keep their memory format."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from care import AbsolutePosition, RelativePosition, Transformer, resnet50
from care.attention import SelfAttention2d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
DEVICE = "cuda"
POSITIONS = [RelativePosition, AbsolutePosition]


def transformer(position):
    """The T-stream's at ResNet-50's widths, for views of 224 px, as ``pretrain`` lays it out."""
    torch.manual_seed(0)
    network = Transformer(1024, 2048, map_size=(14, 14), position=position, zero_gamma=False)
    return network.to(DEVICE).to(memory_format=torch.channels_last)


def maps(batch_size=8):
    """Maps of ResNet-50's layer3."""
    x = torch.randn(batch_size, 1024, 14, 14, device=DEVICE)
    return x.contiguous(memory_format=torch.channels_last)


def recorded(network, precision):
    """The operators and kernels of a forward and a backward pass."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        with torch.autocast(DEVICE, precision):
            features = network(maps())
        features.float().square().sum().backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    assert features.isfinite().all()
    return {event.key for event in profiler.key_averages()}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("position", POSITIONS)
def test_flash_attention_computes_the_t_stream(position, precision):
    network = transformer(position)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # raises where flash cannot
        names = recorded(network, precision)
    assert "aten::_scaled_dot_product_flash_attention" in names
    assert "aten::_scaled_dot_product_flash_attention_backward" in names
    kernels = [name for name in names if "flash" in name and not name.startswith("aten::")]
    assert any("flash_fwd" in name for name in kernels), kernels
    assert any("flash_bwd" in name for name in kernels), kernels


@pytest.mark.parametrize("position", POSITIONS)
def test_torch_chooses_a_fused_kernel_by_itself(position):
    names = recorded(transformer(position), torch.bfloat16)
    assert "aten::_scaled_dot_product_attention_math" not in names
    backends = ("flash_attention", "cudnn_attention", "efficient_attention")
    assert any(f"aten::_scaled_dot_product_{backend}" in names for backend in backends)


@pytest.mark.parametrize("position", POSITIONS)
def test_attention_is_that_of_the_cpu(position, exact):
    torch.manual_seed(0)
    attention = SelfAttention2d(512, map_size=(14, 14), position=position)
    x = torch.randn(2, 512, 14, 14)
    with torch.no_grad():
        wanted = attention(x)
        attention.to(DEVICE)
        single = attention(x.to(DEVICE)).cpu()
        with torch.autocast(DEVICE, torch.bfloat16):
            half = attention(x.to(DEVICE)).float().cpu()
    torch.testing.assert_close(single, wanted, rtol=1e-3, atol=1e-4)
    assert (half - wanted).norm() < 0.02 * wanted.norm()


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("position", POSITIONS)
def test_maps_stay_channels_last(position):
    encoder = resnet50().to(DEVICE).to(memory_format=torch.channels_last)
    network, seen = transformer(position), {}
    # inside a block relative positions leave the attention's output contiguous: blocks count
    del encoder.avgpool  # torchvision's, which the encoder does not use
    modules = {f"encoder.{name}": module for name, module in encoder.named_modules() if name}
    modules |= {f"block.{name}": module for name, module in network.blocks.named_children()}
    for name, module in modules.items():
        module.register_forward_hook(lambda _module, _in, out, name=name: seen.update({name: out}))
    with torch.autocast(DEVICE, torch.bfloat16):
        images = torch.randn(2, 3, 224, 224, device=DEVICE)
        encoded = encoder(images.contiguous(memory_format=torch.channels_last))
        network(encoded.map).float().sum().backward()
    assert seen.keys() == modules.keys()
    assert [name for name, out in seen.items() if not is_channels_last(out)] == []
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    used = [module for module in convolutions if module.weight.grad is not None]
    assert len(used) > 40
    assert all(is_channels_last(module.weight) for module in used)
