"""Max-Feature-Map, its ReLU form, and the swap that DeepLift needs."""

import pytest
import torch
from torch import nn

from xaibench.layers import MaxFeatureMap, ReLUMaxFeatureMap, deeplift_form


def kinds(net: nn.Module) -> list[type]:
    return [type(m) for m in net.modules()]


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(3, 8), MaxFeatureMap(), nn.Linear(4, 6))
    return nn.Sequential(inner, MaxFeatureMap(), nn.BatchNorm1d(3)).eval()


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 5, 4)])
def test_the_maximum_of_the_two_halves_of_the_channels(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = MaxFeatureMap()(x)
    assert found.shape == (2, 3, *shape[2:])
    assert torch.equal(found, torch.where(x[:, :3] > x[:, 3:], x[:, :3], x[:, 3:]))


def test_the_relu_form_is_equal_to_rounding_in_value_and_gradient():
    x = torch.randn(4, 10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b = MaxFeatureMap()(x), ReLUMaxFeatureMap()(x)
    assert torch.allclose(a, b, rtol=0, atol=1e-14)
    weight = torch.randn(a.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slopes = [torch.autograd.grad((form * weight).sum(), x)[0] for form in (a, b)]
    assert torch.allclose(*slopes, rtol=0, atol=1e-14)


def test_the_forms_non_linearity_is_a_relu_module_of_its_own():
    assert [type(m) for m in MaxFeatureMap().deeplift_form().modules()] == [ReLUMaxFeatureMap, nn.ReLU]


def test_inside_the_block_every_map_is_swapped_and_afterwards_all_is_as_before():
    net = network()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before, modules, names = net(x), list(net.modules()), [n for n, _ in net.named_modules()]
    with deeplift_form(net) as prepared:
        assert prepared is net
        assert MaxFeatureMap not in kinds(net) and kinds(net).count(ReLUMaxFeatureMap) == 2
        assert torch.allclose(net(x), before, atol=1e-6)
        assert not any(m.training for m in net.modules())
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    assert [n for n, _ in net.named_modules()] == names
    assert torch.equal(net(x), before)


def test_also_after_an_exception():
    net = network()
    with pytest.raises(ZeroDivisionError), deeplift_form(net):
        raise ZeroDivisionError
    assert kinds(net).count(MaxFeatureMap) == 2 and ReLUMaxFeatureMap not in kinds(net)


def test_nested_blocks_restore_at_the_outermost():
    net = network()
    with deeplift_form(net):
        with deeplift_form(net):
            assert MaxFeatureMap not in kinds(net)
        assert MaxFeatureMap not in kinds(net)
    assert kinds(net).count(MaxFeatureMap) == 2


def test_one_instance_under_two_names_is_swapped_at_both():
    shared = MaxFeatureMap()
    net = nn.Sequential(nn.Linear(2, 8), shared, shared)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    before = net(x)
    with deeplift_form(net):
        assert [type(m) for m in net] == [nn.Linear, ReLUMaxFeatureMap, ReLUMaxFeatureMap]
        assert net[1] is not net[2]  # DeepLift stores activations on the module
        assert torch.allclose(net(x), before, atol=1e-6)
    assert net[1] is net[2] is shared


def test_a_network_without_such_layers_passes_untouched():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with deeplift_form(net):
        assert kinds(net) == [nn.Sequential, nn.Linear, nn.ReLU]
