"""Reading NII's checkpoints: the score of what is read equals that of a literal twin in NII's own orientation.

The state dicts are generated, with the names and shapes of the published code; no file of NII's is at hand.
"""

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures import lfcc
from xaibench_countermeasures.lcnn_lfcc import lstm_sum, trim_pad
from xaibench_countermeasures.nii import convert_nii, read_nii

from xaibench.errors import CheckpointError
from xaibench.scoring import bonafide_log_odds
from xaibench.weights import load_weights, read_card

#: NII's modules by index: (kernel, in, out) of a convolution, channels of a batch normalisation.
CONVOLUTIONS = {
    0: (5, 1, 64), 3: (1, 32, 64), 6: (3, 32, 96), 10: (1, 48, 96), 13: (3, 48, 128), 16: (1, 64, 128), 19: (3, 64, 64),
    22: (1, 32, 64), 25: (3, 32, 64),
}  # fmt: skip
NORMS = {5: 32, 9: 48, 12: 48, 18: 64, 21: 32, 24: 32}
MAPS, POOLS = (1, 4, 7, 11, 14, 17, 20, 23, 26), (2, 8, 15, 27)


def nii_state(kind: str, frames: int = 48, seed: int = 0) -> OrderedDict[str, Tensor]:
    """A state dict as `trained_network.pt` holds it, with random weights."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        fan = max(1, torch.Size(shape[1:]).numel())
        return torch.randn(shape, generator=draw) * (2 / fan) ** 0.5

    state = OrderedDict(
        input_mean=torch.zeros(1), input_std=torch.ones(1), output_mean=torch.zeros(1), output_std=torch.ones(1)
    )
    for i, (kernel, inputs, outputs) in CONVOLUTIONS.items():
        state[f"m_transform.0.{i}.weight"] = random(outputs, inputs, kernel, kernel)
        state[f"m_transform.0.{i}.bias"] = 0.1 * random(outputs)
    for i, channels in NORMS.items():
        state[f"m_transform.0.{i}.running_mean"] = 0.3 * random(channels)
        state[f"m_transform.0.{i}.running_var"] = 0.5 + torch.rand(channels, generator=draw)
        state[f"m_transform.0.{i}.num_batches_tracked"] = torch.tensor(100)
    if kind == "fixed":
        state["m_output_act.0.1.weight"] = random(160, frames // 16 * 3 * 32)
        state["m_output_act.0.1.bias"] = random(160)
        state["m_output_act.0.3.weight"], state["m_output_act.0.3.bias"] = random(1, 80), random(1)
    else:
        for layer in range(2):
            lstm = nn.LSTM(96, 48, bidirectional=True)
            for name, parameter in lstm.named_parameters():
                state[f"m_before_pooling.0.{layer}.l_blstm.{name}"] = 0.2 * random(*parameter.shape)
        state["m_output_act.0.weight"], state["m_output_act.0.bias"] = random(1, 96), random(1)
    state["m_frontend.0.lfcc_fb"] = torch.from_numpy(lfcc.triangles().T).float()
    state["m_frontend.0.l_dct.weight"] = torch.from_numpy(lfcc.cosines()).float()
    return state


@torch.no_grad()
def nii_score(state: dict[str, Tensor], kind: str, wave: Tensor, frames: int | None) -> Tensor:
    """NII's forward pass on one waveform `(N,)`, in its orientation (1, 1, frame, coefficient), in plain functions."""
    f = nn.functional
    features = lfcc.Cepstrum()(lfcc.PowerSpectrum()(wave[None]))[0, 0].T  # (T, 60); test_lfcc.py checks it
    if frames is not None:  # fixed: N // 160 frames, cut or repeated
        features = features[: len(wave) // 160]
        features = features.repeat(-(-frames // len(features)), 1)[:frames]
    x = features[None, None]
    for i in range(28):
        if i in CONVOLUTIONS:
            kernel = CONVOLUTIONS[i][0]
            x = f.conv2d(x, state[f"m_transform.0.{i}.weight"], state[f"m_transform.0.{i}.bias"], padding=kernel // 2)
        elif i in MAPS:
            batch, channels, height, width = x.shape
            x = x.view(batch, 2, channels // 2, height, width).max(1)[0]
        elif i in POOLS:
            x = f.max_pool2d(x, [2, 2], [2, 2])
        else:
            mean, var = state[f"m_transform.0.{i}.running_mean"], state[f"m_transform.0.{i}.running_var"]
            x = (x - mean[None, :, None, None]) / torch.sqrt(var[None, :, None, None] + 1e-5)
    if kind == "fixed":
        hidden = x.flatten(1) @ state["m_output_act.0.1.weight"].T + state["m_output_act.0.1.bias"]
        hidden = hidden.view(1, 2, 80).max(1)[0]
        return (hidden @ state["m_output_act.0.3.weight"].T + state["m_output_act.0.3.bias"])[0, 0]
    hidden = x.permute(0, 2, 1, 3).flatten(2)  # (1, T // 16, 96)
    out = hidden
    for layer in range(2):
        lstm = nn.LSTM(96, 48, bidirectional=True)  # (T, batch, 96), as NII calls it
        lstm.load_state_dict({n: state[f"m_before_pooling.0.{layer}.l_blstm.{n}"] for n, _ in lstm.named_parameters()})
        out = lstm(out.permute(1, 0, 2))[0].permute(1, 0, 2)
    return ((out + hidden).mean(1) @ state["m_output_act.0.weight"].T + state["m_output_act.0.bias"])[0, 0]


def noise(n_samples: int) -> Tensor:
    """Brownish, so that time and frequency differ."""
    white = torch.randn(n_samples, generator=torch.Generator().manual_seed(1))
    return 0.02 * white + 0.1 * torch.sin(torch.cumsum(torch.linspace(0.02, 2.0, n_samples), 0))


def save(tmp_path: Path, state: object, name: str = "trained_network.pt") -> Path:
    torch.save(state, tmp_path / name)
    return tmp_path / name


def converted(tmp_path: Path, name: str, kind: str, frames: int = 48, **options):
    path = save(tmp_path, nii_state(kind, frames))
    out = convert_nii(name, path, tmp_path / "out" / f"{name}.safetensors", frames=frames, **options)
    card = read_card(out)
    model = {"lcnn-lfcc": trim_pad, "lcnn-lfcc-lstm": lstm_sum}[name].untrained(seed=9, **card["options"])
    load_weights(model, out)
    return model.eval(), card


@pytest.mark.parametrize(("name", "kind", "cut"), [("lcnn-lfcc", "fixed", 48), ("lcnn-lfcc-lstm", "lstmsum", None)])
def test_what_is_read_scores_as_in_nii_s_orientation(tmp_path, name, kind, cut):
    model, _ = converted(tmp_path, name, kind)
    wave = noise(7_680)
    with torch.no_grad():
        found = bonafide_log_odds(model(wave[None]), model.classes)
    expected = nii_score(nii_state(kind), kind, wave, cut)
    assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    assert abs(float(expected)) > 0.01


def test_nii_s_own_size_of_trim_pad_is_read(tmp_path):
    model, card = converted(tmp_path, "lcnn-lfcc", "fixed", 750)
    assert card["options"] == {"dropout": 0.7, "n_samples": 120_000, "frames": 750}
    wave = noise(120_000)
    with torch.no_grad():
        found = bonafide_log_odds(model(wave[None]), model.classes)
    assert float(found) == pytest.approx(float(nii_score(nii_state("fixed", 750), "fixed", wave, 750)), rel=1e-4, abs=1e-4)


def test_the_twin_would_notice_a_kernel_that_is_not_transposed(tmp_path):
    model, _ = converted(tmp_path, "lcnn-lfcc", "fixed")
    wave = noise(7_680)
    with torch.no_grad():
        before = float(bonafide_log_odds(model(wave[None]), model.classes))
        kernel = model.backend.m_transform[0][25].weight
        kernel.copy_(kernel.transpose(2, 3).clone())
        after = float(bonafide_log_odds(model(wave[None]), model.classes))
    assert abs(before - after) > 1e-3


def test_names_and_kernels_of_what_is_read(tmp_path):
    state = nii_state("lstmsum")
    weights = read_nii(save(tmp_path, state))
    expected = set(lstm_sum.untrained(seed=0).state_dict()) - {"frontend.mean"}
    assert set(weights) == expected
    for i in CONVOLUTIONS:
        key = f"m_transform.0.{i}.weight"
        assert torch.equal(weights[f"backend.{key}"], state[key].transpose(2, 3))
    key = "m_before_pooling.0.1.l_blstm.weight_hh_l0_reverse"
    assert torch.equal(weights[f"backend.{key}"], state[key])


def test_an_epoch_s_checkpoint_is_read_too(tmp_path):
    bare = read_nii(save(tmp_path, nii_state("fixed")))
    epoch = read_nii(save(tmp_path, {"state_dict": nii_state("fixed"), "info": "epoch 3"}, "epoch_003.pt"))
    assert bare.keys() == epoch.keys() and all(torch.equal(bare[k], epoch[k]) for k in bare)


def test_the_card_says_where_the_weights_come_from(tmp_path):
    _, card = converted(tmp_path, "lcnn-lfcc-lstm", "lstmsum", 750)
    assert (
        card["trained_on"]["data"] == "unknown (imported from trained_network.pt)"
        and "silence" in card["trained_on"]["mean"]
    )
    assert (card["name"], card["classes"], card["n_samples"], card["eer"]) == (
        "lcnn-lfcc-lstm", ["spoof", "bonafide"], 120_000, {},
    )  # fmt: skip
    json.dumps(card)


def test_a_mean_that_is_given_is_kept(tmp_path):
    mean = torch.rand(257, 1)
    model, card = converted(tmp_path, "lcnn-lfcc", "fixed", mean=mean)
    assert torch.equal(model.mean_tap[0, 0], mean) and card["trained_on"]["mean"] == "given"


def without(state: dict, key: str) -> dict:
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without(nii_state("fixed"), "m_transform.0.6.bias"), r"missing m_transform\.0\.6\.bias"),
        ({**nii_state("fixed"), "m_a_softmax.0.weight": torch.ones(2)}, r"unknown m_a_softmax\.0\.weight"),
        ({**nii_state("fixed"), "m_output_act.0.3.weight": torch.ones(64, 80)}, r"m_output_act\.0\.3\.weight is \(64, 80\)"),
        (nii_state("fixed", 64), r"m_output_act\.0\.1\.weight is \(160, 384\), expected \(160, 288\)"),
        (
            {**nii_state("fixed"), "m_output_act.0.1.weight": torch.ones(160, 97)},
            r"m_output_act\.0\.1\.weight is \(160, 97\)",
        ),
        ({**nii_state("fixed"), "m_transform.0.0.bias": torch.full((64,), torch.nan)}, r"m_transform\.0\.0\.bias holds NaN"),
        ({**nii_state("fixed"), "m_transform.0.0.bias": 3}, r"m_transform\.0\.0\.bias is a int"),
        ({**nii_state("fixed"), "m_frontend.0.lfcc_fb": torch.ones(257, 60)}, r"lfcc_fb is \(257, 60\).*lfb-lcnn"),
        (without(nii_state("fixed"), "m_frontend.0.lfcc_fb"), r"lfcc_fb is missing"),
        (nii_state("lstmsum"), r"missing m_output_act\.0\.1\.weight.*trim-pad or LSTM-sum"),
        ({"weight": torch.ones(2)}, "expected a state dict with keys m_transform"),
        ([1, 2], "expected a state dict"),
    ],
)
def test_weights_of_something_else_are_refused_by_name(tmp_path, state, message):
    path = save(tmp_path, state)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_nii("lcnn-lfcc", path, tmp_path / "lcnn-lfcc.safetensors", frames=48)
    assert str(path) in str(caught.value) and not (tmp_path / "lcnn-lfcc.safetensors").exists()


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap"),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, {"m_transform.0.0.weight": Trap()})
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_nii(path)
    assert not (tmp_path / "trap").exists()


def test_a_missing_or_damaged_file_and_an_unknown_network_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.pt: no such file"):
        read_nii(tmp_path / "absent.pt")
    (tmp_path / "cut.pt").write_bytes(save(tmp_path, nii_state("fixed")).read_bytes()[:5_000])
    with pytest.raises(CheckpointError, match=r"cut\.pt: damaged"):
        read_nii(tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match="'lcnn' is no network of NII's"):
        convert_nii("lcnn", tmp_path / "cut.pt", tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match=r"out\.bin: a checkpoint is written as \.safetensors"):
        convert_nii("lcnn-lfcc", save(tmp_path, nii_state("fixed")), tmp_path / "out.bin", frames=48)
