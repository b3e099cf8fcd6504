"""Weights on disk: what is written comes back to the bit, and everything else is refused with the file's name."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xaibench.errors import CheckpointError
from xaibench.weights import load_weights, read_card, save_weights, weights_hash


def network(seed: int = 0, width: int = 4) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "net.safetensors", network())
    return tmp_path / "net.safetensors"


def test_parameters_and_buffers_come_back_to_the_bit(path):
    other = network(1)
    assert weights_hash(other) != weights_hash(network())
    load_weights(other, path)
    assert weights_hash(other) == weights_hash(network())
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no scratch file left


def test_loading_is_in_place(path):
    net = network(1)
    parameter = net[0].weight
    load_weights(net, path)
    assert net[0].weight is parameter and torch.equal(parameter, network()[0].weight)


def test_a_tensor_under_two_names_is_written_under_both(tmp_path):
    net = network()
    net.add_module("again", net[0])
    save_weights(tmp_path / "tied.safetensors", net)
    other = network(1)
    other.add_module("again", other[0])
    load_weights(other, tmp_path / "tied.safetensors")
    assert weights_hash(other) == weights_hash(net)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.ckpt", "net.bin", "net.pkl", "net.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_whatever_its_name(tmp_path, name, zipped):
    torch.save(network().state_dict(), tmp_path / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"{name}: looks like a pickle, which can run code"):
        load_weights(network(), tmp_path / name)


@pytest.mark.parametrize("header", [640, 896, 1_152, 1_408])
def test_a_header_whose_length_reads_like_a_pickles_first_bytes_is_no_pickle(tmp_path, header):
    net = nn.Module()
    net.register_buffer("scale", torch.ones(2))
    path = tmp_path / "net.safetensors"
    empty = len(json.dumps({"__metadata__": {"x": ""}, "scale": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
                           separators=(",", ":")))  # fmt: skip
    save_file(net.state_dict(), path, metadata={"x": "y" * (header - empty)})
    head = path.read_bytes()[:2]
    assert head == header.to_bytes(2, "little") and head[0] == 0x80
    load_weights(net, path)


@pytest.mark.parametrize("keep", [0, 5, 60, -3])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"net\.safetensors: not a readable safetensors file.*truncated"):
        load_weights(network(), path)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file; `xaibench train"):
        load_weights(network(), tmp_path / "none.safetensors")


def test_another_architecture_is_refused_with_names_and_shapes(path):
    wide = network(width=5)
    before = weights_hash(wide)
    with pytest.raises(
        CheckpointError, match=r"another architecture: 0\.weight is \(4, 3\), expected \(5, 3\);.*and \d more"
    ):
        load_weights(wide, path)
    assert weights_hash(wide) == before
    with pytest.raises(CheckpointError, match=r"missing new\.weight; missing new\.bias"):
        net = network()
        net.add_module("new", nn.Linear(1, 1))
        load_weights(net, path)
    with pytest.raises(CheckpointError, match=r"unknown 2\.(bias|weight)"):
        load_weights(network()[:2], path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_diverged_training_are_refused(tmp_path, value):
    net = network()
    net[2].bias.data[1] = value
    save_weights(tmp_path / "net.safetensors", net)
    target = network(1)
    before = weights_hash(target)
    with pytest.raises(CheckpointError, match=r"2\.bias holds NaN or infinity"):
        load_weights(target, tmp_path / "net.safetensors")
    assert weights_hash(target) == before


def test_the_hash_changes_with_one_bit_of_any_tensor():
    wanted = weights_hash(network())
    assert wanted == weights_hash(network()) and len(wanted) == 64
    for name in network().state_dict():
        net = network()
        flat = net.state_dict()[name].reshape(-1).view(torch.uint8)
        flat[0] ^= 1
        assert weights_hash(net) != wanted, name


def test_the_hash_sees_names_shapes_and_every_kind_of_number():
    def hashed(name: str, tensor: torch.Tensor) -> str:
        net = nn.Module()
        net.register_buffer(name, tensor)
        return weights_hash(net)

    zeros = torch.zeros(2, 3)
    found = {hashed("a", zeros), hashed("b", zeros), hashed("a", zeros.T.contiguous()), hashed("a", zeros.bfloat16()),
             hashed("a", zeros.half()), hashed("a", torch.tensor(3)), hashed("a", torch.tensor(True))}  # fmt: skip
    assert len(found) == 7


def test_the_hash_is_the_same_on_every_machine():
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0]]))
        net.bias.zero_()
    assert weights_hash(net) == "20cbe336341ea66ea586568cb031da3511edc8dc1aa83e2efcd36db4adb8fb2a"


def test_a_card_is_read(path):
    path.with_suffix(".json").write_text('{"name": "net", "eer": 0.1}', encoding="utf-8")
    assert read_card(path) == {"name": "net", "eer": 0.1}


def test_a_missing_card_is_refused(path):
    with pytest.raises(CheckpointError, match=r"net\.json: the card of the checkpoint is missing"):
        read_card(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: net", "damaged .Expecting value"),
        (b"", "damaged .Expecting value"),
        (b"\xff\xfe{}", "damaged .'utf-8' codec"),
        (b"[1]", "expected an object, got list"),
    ],
)
def test_a_card_that_is_no_json_object_is_refused(path, content, message):
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"net\.json: {message}"):
        read_card(path)
