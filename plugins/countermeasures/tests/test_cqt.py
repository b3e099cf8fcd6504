"""The constant-Q front end against a literal twin in the time domain, closed forms, and physics."""

import numpy as np
import pytest
import torch
from torch import Tensor
from xaibench_countermeasures.cqt import POWER_FLOOR, ConstantQ, LogCQT

from xaibench.errors import XaibenchError
from xaibench.grid import Grid

CQ = ConstantQ()
RATE, HOP, B = 16_000, 160, 16


def noise(count: int = 2, n_samples: int = 16_000) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(0))


def sine(hertz: float, amplitude: float, n_samples: int = 32_000) -> Tensor:
    return amplitude * torch.sin(2 * torch.pi * hertz * torch.arange(n_samples, dtype=torch.float64) / RATE)[None]


def twin_power(x: np.ndarray, k: int, frame: int, lead: int, frames: int) -> float:
    """One cell, from the definition: the kernel as a sum of complex exponentials, its product with the mirrored signal
    summed sample by sample at every envelope sample of the hop around the frame's centre, trapezoid rule over the power."""
    length = frames * HOP
    after = length - lead * HOP - len(x)
    mirrored = np.concatenate([x[lead * HOP : 0 : -1], x, x[-2 : -after - 2 : -1]])
    centre = 62.5 * 2 ** (k / B)
    width = 2 * centre * (2 ** (1 / B) - 1)
    bins = [j for j in range(length // 2 + 1) if abs(j * RATE / length - centre) < width]
    heights = [0.5 + 0.5 * np.cos(np.pi * (j * RATE / length - centre) / width) for j in bins]
    per_frame = 1
    while per_frame * RATE / HOP < 2 * width:  # envelope samples a second that hold a band 2 W wide
        per_frame *= 2
    n = np.arange(length)
    kernel = sum(h * np.exp(2j * np.pi * j * n / length) for h, j in zip(heights, bins, strict=True)) * 2 / length
    middle = (lead + frame) * HOP
    if per_frame == 1:
        at, weights = [middle], [1.0]
    else:
        at = [middle - HOP // 2 + i * HOP // per_frame for i in range(per_frame + 1)]
        weights = [0.5 / per_frame, *[1 / per_frame] * (per_frame - 1), 0.5 / per_frame]
    return float(sum(w * abs(np.sum(mirrored * kernel[(p - n) % length])) ** 2 for w, p in zip(weights, at, strict=True)))


@pytest.mark.parametrize("frame", [0, 33])
def test_it_equals_the_literal_twin_in_the_time_domain(frame):
    x = noise(1, 5_280).double()
    found = CQ.power(x)[0, :, frame]
    assert (CQ.lead, CQ.frames(5_280)) == (20, 75)
    for k in (0, 50, 51, 66, 67, 82, 83, 98, 99):  # both sides of every change of rate
        assert float(found[k]) == pytest.approx(twin_power(x[0].numpy(), k, frame, 20, 75), rel=1e-9)


def test_a_click_rings_as_the_closed_form_of_the_kernel():
    """Inverse Fourier transform of the Hann window: W sinc(2 W t) / (1 - (2 W t)^2). The twin does not know this form."""
    x = torch.zeros(1, 32_000, dtype=torch.float64)
    x[0, 16_000] = 1.0
    power = CQ.power(x)[0]
    t = np.array([0, 3, 7, 13]) * HOP / RATE
    for k in (0, 20, 50):  # one envelope sample a frame: the power at its centre
        u = 2 * CQ.half_widths[k] * t
        expected = (2 / RATE * CQ.half_widths[k] * np.sinc(u) / (1 - u**2)) ** 2
        np.testing.assert_allclose(power[k, 100 + np.array([0, 3, 7, 13])].numpy(), expected, atol=2e-3 * expected[0])


@pytest.mark.parametrize("k", [0, 1, 16, 50, 51, 80, 98, 109])
def test_a_sine_at_a_centre_has_its_squared_amplitude_there_and_nothing_far_away(k):
    power = CQ.power(sine(float(CQ.centres[k]), 0.3))[0, :, 100]
    assert int(power.argmax()) == k
    assert float(power[k]) == pytest.approx(0.09, rel=2e-3)
    away = torch.tensor([abs(i - k) > 3 for i in range(110)])
    assert float(power[away].max()) < 1e-5 * 0.09


def test_a_neighbour_hears_a_sine_as_its_window_says():
    power = CQ.power(sine(float(CQ.centres[60]), 1.0))[0, :, 100]
    for k in (58, 59, 61, 62):
        distance = (CQ.centres[60] - CQ.centres[k]) / CQ.half_widths[k]
        height = 0.5 + 0.5 * np.cos(np.pi * distance) if abs(distance) < 1 else 0.0
        assert float(power[k]) == pytest.approx(height**2, abs=1e-3)


@pytest.mark.parametrize("at", [16_000, 16_033, 16_079])
def test_a_click_stays_in_its_cell_above_two_kilohertz(at):
    x = torch.zeros(1, 32_000)
    x[0, at] = 1.0
    power = CQ.power(x)[0, CQ.centres > 2_000]
    share = power[:, 100] / power.sum(dim=1)
    assert float(share.min()) > (0.93 if at < 16_050 else 0.4)  # the last one stands on the edge to the next cell
    assert (power.argmax(dim=1) == 100).all()


def test_no_click_falls_between_two_frames():
    """Above 1 kHz the kernels are shorter than the hop: sampling the envelope once a frame would miss most clicks."""
    totals = []
    for at in (16_000, 16_020, 16_040, 16_057, 16_080, 16_131):
        x = torch.zeros(1, 32_000, dtype=torch.float64)
        x[0, at] = 1.0
        totals.append(CQ.power(x)[0, CQ.centres > 1_200].sum(dim=1))
    totals = torch.stack(totals)
    assert torch.allclose(totals, totals[:1].expand_as(totals), rtol=0.02)


def test_white_noise_has_the_power_of_its_band():
    """E|y|^2 = 4 sigma^2 / fs * integral H^2 = 3 sigma^2 W / fs."""
    mean = CQ.power(noise(24, 32_000)).mean(dim=(0, 2))
    expected = torch.from_numpy(3 * 0.01 * CQ.half_widths / RATE).float()
    assert float((mean / expected - 1)[30:].abs().max()) < 0.15
    assert float((mean / expected).mean()) == pytest.approx(1, abs=0.03)


def test_silence_is_the_floor_and_has_finite_gradients():
    x = torch.zeros(1, 8_000, requires_grad=True)
    tap = LogCQT(CQ).log_power(x)
    assert torch.allclose(tap, torch.full_like(tap, float(np.log(POWER_FLOOR))))
    tap.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_frequency_axis_is_geometric_and_covers_the_centres():
    axis = CQ.axis
    assert axis.kind == "frequency" and len(axis) == 110
    np.testing.assert_allclose(axis.edges[1:] / axis.edges[:-1], 2 ** (1 / 16))
    np.testing.assert_allclose(axis.edges[1:-1], np.sqrt(CQ.centres[1:] * CQ.centres[:-1]))
    assert 0 < axis.edges[0] < 62.5 and CQ.centres[-1] < axis.edges[-1] < 8_000
    assert LogCQT(CQ).axis == axis


def test_the_time_axis_is_the_grid_s():
    assert CQ.time(32_000) == Grid().time(32_000)
    assert CQ.shape(32_000)[1] == Grid().shape(32_000)[1]


@pytest.mark.parametrize("n_samples", [4_161, 4_320, 8_000, 15_999, 16_001, 64_600])
def test_any_length_gives_the_frames_of_the_hop(n_samples):
    assert CQ.power(noise(1, n_samples)).shape == (1, 110, n_samples // 160 + 1)


def test_an_excerpt_s_inner_frames_do_not_depend_on_how_long_it_is():
    """Other transform lengths, other Fourier bins: the same cells, away from the ends."""
    x = noise(1, 40_000)
    whole, part = CQ.power(x), CQ.power(x[:, :32_000])
    inner = slice(60, 140)
    assert torch.allclose(whole[0, 40:, inner], part[0, 40:, inner], rtol=0.02, atol=1e-9)


def test_half_precision_is_not_needed_and_single_is_enough():
    x = noise(1)
    assert torch.allclose(CQ.power(x).double(), CQ.power(x.double()), rtol=1e-3, atol=1e-12)


def test_a_waveform_is_the_same_alone_and_in_a_batch():
    x = noise(3)
    assert torch.allclose(CQ.power(x), torch.cat([CQ.power(w[None]) for w in x]), rtol=1e-4, atol=1e-12)


def test_gradients_work_after_a_first_call_in_inference_mode():
    cq = ConstantQ(bins=40)  # kernels of its own: nothing kept from other tests
    with torch.inference_mode():
        cq.power(noise(1, 9_000))
    x = noise(1, 9_000).requires_grad_()
    cq.power(x).sum().backward()
    assert float(x.grad.abs().max()) > 0


def test_the_gradient_is_that_of_finite_differences():
    cq = ConstantQ(f_min=500.0, bins=50)
    x = noise(1, 2_000).double().requires_grad_()
    loss = lambda w: (cq.power(w) + 1e-6).log().sum()  # noqa: E731
    loss(x).backward()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        measured = (loss(x + 1e-7 * direction) - loss(x - 1e-7 * direction)) / 2e-7
    assert float(measured) == pytest.approx(float((x.grad * direction).sum()), rel=1e-4)


def test_fit_brings_every_band_to_zero_mean_and_unit_deviation():
    frontend = LogCQT(CQ)
    frontend.fit(noise(4))
    tap = frontend(noise(4))
    assert tap.shape == (4, 1, 110, 101)
    assert torch.allclose(tap.mean(dim=(0, 1, 3)), torch.zeros(110), atol=1e-3)
    assert torch.allclose(tap.std(dim=(0, 1, 3)), torch.ones(110), atol=1e-3)
    frontend.fit(torch.zeros(2, 8_000))  # a band that never varies
    assert torch.isfinite(frontend(noise(1))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 118}, "Nyquist"),
        ({"hop": 161}, "even hop"),
        ({"f_min": 0.0}, "f_min"),
        ({"bins_per_octave": 2}, "bins_per_octave"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(XaibenchError, match=message):
        ConstantQ(**options)


def test_waveforms_it_cannot_transform_are_refused():
    with pytest.raises(XaibenchError, match="4160 samples are too few"):
        CQ.power(noise(1, 4_160))
    with pytest.raises(XaibenchError, match=r"\(B, N\)"):
        CQ.power(noise(1)[0])
