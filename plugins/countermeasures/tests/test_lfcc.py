"""LFCC against the formulas, frame by frame and bin by bin, and the cut at the power spectrum."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from xaibench_countermeasures import lfcc

from xaibench.errors import XaibenchError

EPS = 2.0**-23  # float32


def noise(count: int = 2, n_samples: int = 1_000, dtype: torch.dtype = torch.float64) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture
def double():
    """Modules made within are float64, constants included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def slow_power(x: np.ndarray) -> np.ndarray:
    """`(N,)` -> `(257, N // 160 + 1)`, as a sum over samples."""
    y = [x[0]] + [x[n] - 0.97 * x[n - 1] for n in range(1, len(x))]
    window = [0.54 - 0.46 * math.cos(2 * math.pi * m / 320) for m in range(320)]
    out = np.zeros((257, len(x) // 160 + 1))
    for t in range(out.shape[1]):
        start = 160 * t - 160
        frame = [w * (y[start + m] if 0 <= start + m < len(x) else 0.0) for m, w in enumerate(window)]
        for k in range(257):
            out[k, t] = abs(np.dot(frame, np.exp(-2j * np.pi * k * np.arange(320) / 512))) ** 2
    return out


def slow_cepstrum(power: np.ndarray) -> np.ndarray:
    """`(257, T)` -> `(60, T)`."""
    frames = power.shape[1]
    static = np.zeros((20, frames))
    for t in range(frames):
        bands = []
        for j in range(20):
            low, centre, high = (8_000 * (j + i) / 21 for i in range(3))
            total = 0.0
            for k in range(257):
                f = k * 31.25
                if low < f <= centre:
                    total += power[k, t] * (f - low) / (centre - low)
                elif centre < f < high:
                    total += power[k, t] * (high - f) / (high - centre)
            bands.append(math.log10(total + EPS))
        for q in range(1, 20):
            angles = [math.cos(math.pi * q * (2 * j + 1) / 40) for j in range(20)]
            static[q, t] = math.sqrt(2 / 20) * sum(b * c for b, c in zip(bands, angles, strict=True))
        static[0, t] = math.log10(sum(power[:, t]) / 512 + EPS)

    def delta(x: np.ndarray) -> np.ndarray:
        return np.array([[row[min(t + 1, frames - 1)] - row[max(t - 1, 0)] for t in range(frames)] for row in x])

    return np.vstack([static, delta(static), delta(delta(static))])


@pytest.mark.parametrize("n_samples", [1_000, 959, 160])
def test_the_power_spectrum_is_the_formula_s(double, n_samples):
    x = noise(1, n_samples)
    found = lfcc.PowerSpectrum()(x)[0, 0].numpy()
    expected = slow_power(x[0].numpy())
    assert found.shape == expected.shape == (257, n_samples // 160 + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_cepstrum_is_the_formula_s(double):
    power = lfcc.PowerSpectrum()(noise())
    found = lfcc.Cepstrum()(power)
    assert found.shape == (2, 1, 60, 7)
    for one, p in zip(found[:, 0].numpy(), power[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(one, slow_cepstrum(p), atol=1e-9)


def test_float32_is_as_good_as_float32_can_be():
    x = noise(1, dtype=torch.float32)
    found = lfcc.Cepstrum()(lfcc.PowerSpectrum()(x))[0, 0].numpy()
    expected = slow_cepstrum(slow_power(x[0].double().numpy()))
    np.testing.assert_allclose(found, expected, atol=2e-5)  # differences of logarithms of size 10


def test_a_faint_frame_meets_the_floor_of_float32(double):
    silent = lfcc.Cepstrum()(torch.zeros(1, 1, 257, 5))[0, 0]
    assert silent[0].numpy() == pytest.approx(math.log10(EPS), rel=1e-12)
    assert float(silent[1:].abs().max()) < 1e-12  # a flat spectrum has no cepstrum, and nothing moves


def test_filters_are_triangles_that_add_up_to_one_between_the_outer_centres():
    bank = lfcc.triangles()
    assert bank.shape == (20, 257) and bank.min() == 0
    centres = np.arange(257) * 31.25
    inside = (centres >= 8_000 / 21) & (centres <= 20 * 8_000 / 21)
    np.testing.assert_allclose(bank[:, inside].sum(0), 1, atol=1e-12)
    assert bank[:, 0].sum() == bank[:, -1].sum() == 0


def test_the_cosines_are_orthonormal():
    c = lfcc.cosines()
    np.testing.assert_allclose(c @ c.T, np.eye(20), atol=1e-12)


def test_a_click_appears_in_the_frame_around_it():
    x = torch.zeros(1, 32_000)
    x[0, 16_000] = 1.0
    energy = lfcc.PowerSpectrum()(x)[0, 0].sum(0)
    assert int(energy.argmax()) == 100
    frequency, time = lfcc.axes(201)
    assert time.edges[100] < 1.0 < time.edges[101]
    assert (frequency.edges[0], frequency.edges[-1], time.edges[0]) == (0, 8_000, 0)


def test_a_tone_appears_at_its_frequency():
    x = torch.sin(2 * math.pi * 3_000 * torch.arange(8_000) / 16_000)[None]
    at = int(lfcc.PowerSpectrum()(x)[0, 0, :, 25].argmax())
    frequency, _ = lfcc.axes(51)
    assert frequency.edges[at] < 3_000 < frequency.edges[at + 1]


def test_fitting_sets_the_mean_power_and_nothing_else():
    frontend = lfcc.PowerSpectrum()
    x = noise(4, 3_200, torch.float32)
    before = frontend(x)
    frontend.fit(x)
    assert torch.equal(frontend(x), before)
    assert torch.allclose(frontend.mean, before.mean(dim=(0, 1, 3))[:, None])
    assert frontend.mean.shape == (257, 1) and float(frontend.mean.min()) > 0


def test_the_waveform_is_left_as_it_was():
    x = noise(2, dtype=torch.float32)
    kept = x.clone()
    lfcc.PowerSpectrum()(x)
    assert torch.equal(x, kept)


def test_the_cepstrum_is_differentiable_where_there_is_no_energy():
    power = torch.zeros(1, 1, 257, 5, requires_grad=True)
    lfcc.Cepstrum()(power)[0, 0, 0, 0].backward()
    assert torch.isfinite(power.grad).all() and float(power.grad[0, 0, :, 0].min()) > 0


def test_autocast_does_not_reach_the_logarithms():
    power = lfcc.PowerSpectrum()(noise(1, dtype=torch.float32))
    plain = lfcc.Cepstrum()(power)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lfcc.Cepstrum()(power), plain)


def test_the_constants_are_no_part_of_a_checkpoint():
    assert not lfcc.Cepstrum().state_dict() and list(lfcc.PowerSpectrum().state_dict()) == ["mean"]


@pytest.mark.parametrize("shape", [(8_000,), (1, 1, 8_000), (1, 0)])
def test_anything_but_waveforms_is_refused(shape):
    with pytest.raises(XaibenchError, match=r"expected waveforms \(B, N\)"):
        lfcc.PowerSpectrum()(torch.zeros(shape))
