"""The quicker backward passes against torch's own: the same gradients, also of gradients, and models left what they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from xaibench.backward import FEW, larger_half, quicken
from xaibench.layers import MaxFeatureMap

#: Sums of up to 64 x 25 products in another order.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maximum_of_halves(x: Tensor) -> Tensor:
    """The twin."""
    a, b = x.chunk(2, dim=1)
    return torch.maximum(a, b)


@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (2, 6)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_larger_half_and_its_gradient_are_those_of_torch_maximum(shape, channels_last):
    x, weight = draw(*shape), draw(shape[0], shape[1] // 2, *shape[2:], seed=1)
    if channels_last and len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    results = []
    for function in (larger_half, maximum_of_halves):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        results.append((value.detach(), *torch.autograd.grad((value * weight).sum(), leaf)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert torch.equal(larger_half(x), maximum_of_halves(x))


@pytest.mark.parametrize("again", [False, True])
def test_of_equal_values_each_gets_half_as_in_torch(again):
    x = torch.tensor([[1.0, 2.0, 4.0, 1.0, 3.0, 0.0]], requires_grad=True)
    gradients = [torch.autograd.grad(f(x).sum(), x, create_graph=again)[0] for f in (larger_half, maximum_of_halves)]
    assert gradients[0].tolist() == gradients[1].tolist() == [[0.5, 0.0, 1.0, 0.5, 1.0, 0.0]]


def test_the_larger_half_can_be_differentiated_twice():
    def curved(x: Tensor) -> Tensor:
        return larger_half(x.square() * x)

    assert torch.autograd.gradgradcheck(curved, draw(2, 4, 3).double().requires_grad_())


def pair(channels: int = 1, **options: object) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution, and a copy that is quickened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = nn.Conv2d(channels, 6, (5, 3), **options)
    return plain, quicken(copy.deepcopy(plain))


@pytest.mark.parametrize("channels", range(1, FEW + 1))
@pytest.mark.parametrize(
    "options", [{}, {"padding": (2, 1)}, {"stride": (2, 3), "padding": 1}, {"dilation": (1, 2), "bias": False}], ids=str
)
def test_a_quickened_convolution_has_the_same_output_and_gradients(channels, options):
    x, results = draw(3, channels, 17, 12), []
    for layer in pair(channels, **options):
        leaf = x.clone().requires_grad_()
        value = layer(leaf)
        wanted = [leaf, *layer.parameters()]
        results.append([value.detach(), *torch.autograd.grad((value * draw(*value.shape, seed=2)).sum(), wanted)])
    plain, quick = results
    assert torch.equal(plain[0], quick[0])
    for a, b in zip(plain[1:], quick[1:], strict=True):
        torch.testing.assert_close(b, a, **TOLERANCE)


def test_a_quickened_convolution_can_be_differentiated_twice():
    plain, quick = (layer.double() for layer in pair(padding=1))
    x = draw(2, 1, 6, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(quick, x) and torch.autograd.gradgradcheck(lambda z: quick(z).sin(), x)
    second = []
    for layer in (plain, quick):
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), [x, *layer.parameters()], allow_unused=True))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(b, a) if a is not None else None


def test_a_copy_of_a_quickened_convolution_uses_its_own_weights():
    _, quick = pair()
    other = copy.deepcopy(quick)
    with torch.no_grad():
        other.weight.zero_(), other.bias.fill_(1.0)
    x = draw(2, 1, 9, 8).requires_grad_()
    assert torch.equal(other(x), torch.ones_like(quick(x)))
    assert not torch.autograd.grad(other(x).sum(), x)[0].any()
    quicker = quicken(copy.deepcopy(quick))
    assert quicker.state_dict().keys() == quick.state_dict().keys() and torch.equal(quicker(x), quick(x))


def test_only_plain_convolutions_of_few_channels_change_and_none_its_class():
    few, many = nn.Conv2d(1, 4, 3), nn.Conv2d(FEW + 1, 4, 3)
    odd = [nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(1, 4, 3, padding_mode="reflect")]
    net = nn.Sequential(few, many, *odd, nn.Linear(3, 2), MaxFeatureMap())
    before = [type(module) for module in net.modules()]
    assert quicken(net) is net and [type(module) for module in net.modules()] == before
    assert "_conv_forward" in vars(few) and not any("_conv_forward" in vars(layer) for layer in [many, *odd])


def test_without_a_gradient_at_the_input_it_is_the_plain_convolution():
    _, quick = pair()
    x = draw(2, 1, 9, 8)
    assert "Convolution" in type(quick(x).grad_fn).__name__ and "_Convolution" not in type(quick(x).grad_fn).__name__
    assert torch.equal(quick(x[0]), functional.conv2d(x[0], quick.weight, quick.bias))
