"""ResNet50 against torchvision's, and its start from ImageNet weights on disk."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet50 as torchvision_resnet50
from xaibench_captum.deeplift import CorrectedDeepLift
from xaibench_countermeasures.resnet50 import OverlappingMaxPool, recipe, resnet50_backend

from xaibench.errors import CheckpointError
from xaibench.layers import deeplift_form


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """torchvision's own network with random weights, running statistics included: what an ImageNet file would hold."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = torchvision_resnet50(weights=None)
        with torch.no_grad():
            for _ in range(5):
                net(torch.randn(4, 3, 64, 64))
    return net.eval()


@pytest.fixture(scope="module")
def state(original) -> dict[str, Tensor]:
    return original.state_dict()


def test_the_number_of_parameters():
    """The published 25,557,032 less two input channels of 64 7 x 7 kernels and 998 of 1,000 classes."""
    with torch.device("meta"):
        count = sum(p.numel() for p in resnet50_backend().parameters())
        assert sum(p.numel() for p in torchvision_resnet50(weights=None).parameters()) == 25_557_032
    assert count == 25_557_032 - 2 * 64 * 49 - 998 * 2_049 == 23_505_858


def test_it_computes_what_torchvision_computes_with_weights_of_the_same_names(original, state):
    ours = resnet50_backend(classes=1_000).eval()
    assert set(ours.state_dict()) == set(state)
    ours.load_state_dict(state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)})
    x = torch.randn(2, 1, 65, 51, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = original(x.expand(-1, 3, -1, -1))
        assert float(expected.std()) > 0.1
        assert torch.allclose(ours(x), expected, atol=1e-4 * float(expected.abs().max()))


def test_layers_are_the_outputs_of_the_four_stages():
    cm = recipe.untrained(seed=0, n_samples=8_000).eval()
    shapes = {}
    for name, layer in cm.layers.items():
        layer.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        cm(torch.zeros(1, 8_000))
    assert list(shapes.items()) == [
        ("layer1", (256, 65, 13)), ("layer2", (512, 33, 7)), ("layer3", (1024, 17, 4)), ("layer4", (2048, 9, 2)),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (3, 1, 0), (2, 2, 0)])
def test_the_disjoint_form_of_the_pooling_is_the_pooling(size, stride, padding):
    pool = OverlappingMaxPool(size, stride=stride, padding=padding)
    x = torch.randn(2, 3, 12, 9, generator=torch.Generator().manual_seed(0)) - 2  # mostly negative: padding must not win
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = pool(inputs[0]), pool.deeplift_form()(inputs[1])
    assert torch.equal(outputs[0], outputs[1])
    weights = torch.arange(outputs[0].numel(), dtype=x.dtype).view_as(outputs[0])
    for output in outputs:
        (output * weights).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad)


def test_deeplift_is_complete_in_spite_of_overlapping_windows():
    """Cells win in up to four windows, and others in the reference than in the input."""
    generator = torch.Generator().manual_seed(0)
    x, reference, weight = (torch.randn(1, *shape, generator=generator) for shape in ((1, 9, 9), (1, 9, 9), (25,)))
    net = nn.Sequential(nn.ReLU(), OverlappingMaxPool(3, stride=2, padding=1), nn.Flatten(), nn.Linear(25, 1))
    net[-1].weight = nn.Parameter(weight)
    with torch.no_grad():
        difference = float(net(x) - net(reference))
    with deeplift_form(net) as prepared:
        found = CorrectedDeepLift(prepared).attribute(x.requires_grad_(), reference)
    assert float(found.sum()) == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_it_starts_from_imagenet_weights_on_disk(state, tmp_path, suffix):
    path = tmp_path / f"resnet50{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    net = recipe.untrained(seed=0, weights=str(path)).backend
    assert torch.equal(net.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(net.layer4[2].bn3.running_var, state["layer4.2.bn3.running_var"])
    assert net.fc.weight.shape == (2, 2048)
    fresh = recipe.untrained(seed=0).backend
    assert torch.equal(net.fc.weight, fresh.fc.weight)  # the classifier is the seed's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "damaged, or holds more than"),
        (b"not a checkpoint at all", "damaged, or holds more than"),
        ({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, "missing conv1.weight"),
        ([torch.zeros(2)], "holds no dictionary of tensors"),
    ],
    ids=["missing", "empty", "garbage", "one tensor", "a list"],
)
def test_a_file_that_is_not_resnet50_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        recipe.untrained(seed=0, weights=str(path))
    assert str(path) in str(caught.value)


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")
    with pytest.raises(CheckpointError, match="damaged, or holds"):
        recipe.untrained(seed=0, weights=str(path))


def test_weights_that_would_run_code_are_refused(tmp_path):
    """A pickled module, as torch.save(model) writes it, names classes to import."""
    path = tmp_path / "weights.pth"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(CheckpointError, match=r"holds more than tensors and plain data .*nothing in it was run"):
        recipe.untrained(seed=0, weights=str(path))


def test_weights_of_another_depth_are_refused(state, tmp_path):
    path = tmp_path / "weights.safetensors"
    other = {n: t for n, t in state.items() if not n.startswith("layer3.5")} | {"layer9.weight": torch.zeros(1)}
    save_file(other, path)
    with pytest.raises(CheckpointError, match=r"not the weights of ResNet50: missing layer3\.5\.conv1\.weight"):
        recipe.untrained(seed=0, weights=str(path))
