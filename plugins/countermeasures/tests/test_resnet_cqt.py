"""ResNet on constant-Q features: its size, its residual sums, and what attribution libraries make of them."""

import pytest
import torch
from torch import Tensor, nn
from xaibench_captum.deeplift import deeplift
from xaibench_captum.lrp import lrp
from xaibench_countermeasures.resnet_cqt import BasicBlock, Carry, ResidualSum, ResNetCQT, recipe
from xaibench_shap.deep import deep_explainer
from xaibench_zennit.lrp import epsilon_plus

from xaibench.view import View, native_view

N_SAMPLES = 5_000


def noise(count: int) -> Tensor:
    return 0.1 * torch.randn(count, N_SAMPLES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def view() -> View:
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES)
    cm.frontend.fit(noise(5))
    for module in cm.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics at once
    with torch.no_grad():
        cm(noise(5))
    waves = noise(5)
    return native_view(cm.eval(), waves[:2], waves[2:4], waves[4:], ["a", "b"])


def test_the_number_of_parameters():
    """Counted by hand from the docstring: convolutions without biases, normalisations with two numbers a channel."""
    total = 49 * 16 + 2 * 16
    for inputs, outputs in ((16, 16), (16, 32), (32, 64), (64, 128)):
        total += 9 * inputs * outputs + 3 * 9 * outputs * outputs + 4 * 2 * outputs
        total += 0 if inputs == outputs else inputs * outputs + 2 * outputs
    total += 128 * 64 + 64 + 64 * 2 + 2
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNetCQT().parameters()) == total == 708_914


def test_layers_are_the_outputs_of_the_four_stages():
    cm = recipe.untrained(seed=0).eval()
    shapes = {}
    for name, layer in cm.layers.items():
        layer.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        cm(torch.zeros(1, 32_000))
    assert list(shapes.items()) == [
        ("stage_1", (16, 55, 101)), ("stage_2", (32, 28, 51)), ("stage_3", (64, 14, 26)), ("stage_4", (128, 7, 13)),
    ]  # fmt: skip


def test_the_axes_are_the_constant_q_bands_and_the_grid_s_frames():
    frequency, time = recipe.untrained(seed=0).axes
    assert (len(frequency), len(time)) == (110, 201)
    assert frequency.edges[0] == pytest.approx(62.5 * 2 ** (-1 / 32)) and frequency.edges[-1] < 8_000


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_the_sum_of_its_shortcut_and_its_branch(stride):
    block = BasicBlock(4, 4, stride=stride).eval()
    x = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    conv, norm = nn.functional.conv2d, nn.functional.batch_norm
    statistics = torch.zeros(4), torch.ones(4)
    branch = norm(conv(x, block.conv_1.weight, stride=stride, padding=1), *statistics).clamp_min(0)
    branch = norm(conv(branch, block.conv_2.weight, padding=1), *statistics)
    shortcut = x if stride == 1 else norm(conv(x, block.shortcut.conv.weight, stride=2), *statistics)
    assert torch.allclose(block(x), (shortcut + branch).clamp_min(0), atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_hooked_sum_is_a_pooling_with_the_same_result_to_the_last_bit(channels_last):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(2))
    if channels_last:
        a, b = (t.contiguous(memory_format=torch.channels_last) for t in (a, b))
    add, carry = ResidualSum(), Carry()
    plain = add(a, b)
    seen = []
    add.sum.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    carry.pool.register_forward_hook(lambda _m, inputs, out: seen.append(out is inputs[0]))
    assert torch.equal(add(a, b), plain) and torch.equal(plain, a + b)
    assert torch.equal(carry(a), a)
    assert seen == [(2, 3, 10, 4), False]


def test_lrp_without_epsilon_is_input_times_gradient(view):
    """True of every network of ReLUs and maxima (Ancona et al. 2018), if every sum shares its relevance by value.

    A residual sum that a library does not see, or a shortcut counted twice, breaks it.
    """
    inputs = view.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(view.model(inputs).sum(), inputs)
    expected = (inputs * gradient).detach().sum(1)
    found = lrp.with_options(epsilon=1e-9)(view).values
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_deeplift_and_deepshap_are_complete(view):
    difference = view.score(view.inputs) - view.score(view.fill("mean"))
    assert torch.allclose(deeplift(view).values.sum((1, 2)), difference, rtol=1e-3, atol=1e-5)
    difference = view.score(view.inputs) - view.score(view.references)
    found = deep_explainer.with_options(background=1)(view).values
    assert torch.allclose(found.sum((1, 2)), difference, rtol=1e-3, atol=1e-4)


def test_zennit_keeps_the_relevance_of_a_sum():
    """On a network without biases the map sums to the score; a sum that hands each summand all would double it a block."""
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES).eval()
    with torch.no_grad():
        for module in cm.backend.modules():
            if isinstance(module, nn.Linear):
                module.bias.zero_()
    waves = noise(3)
    view = native_view(cm, waves[:1], waves[1:2], waves[2:], ["a"])
    total, score = float(epsilon_plus(view).values.sum()), float(view.score(view.inputs))
    assert total == pytest.approx(score, rel=0.02)
