"""The fixed sinc filters against the authors' formula, written out, and the tap of samples."""

import numpy as np
import pytest
import torch
from torch import Tensor
from xaibench_countermeasures import sinc
from xaibench_countermeasures.sinc import Sinc, Waveform, fast_length, mel_edges, sinc_filters


def twin(count: int, length: int, sample_rate: int) -> np.ndarray:
    """One number at a time, after the constructor of both authors' filter banks."""
    if length % 2 == 0:
        length += 1
    mel_top = 2595 * np.log10(1 + (sample_rate / 2) / 700)
    edges = [700 * (10 ** (mel_top * i / count / 2595) - 1) for i in range(count + 1)]
    filters = np.zeros((count, length))
    for i in range(count):
        for j in range(length):
            n = j - (length - 1) / 2
            high = 2 * edges[i + 1] / sample_rate * np.sinc(2 * edges[i + 1] * n / sample_rate)
            low = 2 * edges[i] / sample_rate * np.sinc(2 * edges[i] * n / sample_rate)
            window = 0.54 - 0.46 * np.cos(2 * np.pi * j / (length - 1))
            filters[i, j] = window * (high - low)
    return filters


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "length", "sample_rate"), [(70, 128, 16_000), (5, 31, 8_000)])
def test_filters_are_those_of_the_authors(count, length, sample_rate):
    assert np.allclose(sinc_filters(count, length, sample_rate).numpy(), twin(count, length, sample_rate), atol=1e-7)


def test_every_filter_passes_its_own_band_and_not_the_others():
    edges = mel_edges(20, 16_000)
    response = np.abs(np.fft.rfft(sinc_filters(20, 1024, 16_000).numpy(), 16_000))  # 1 Hz a bin
    for i in range(20):
        centre = round((edges[i] + edges[i + 1]) / 2)
        assert response[:, centre].argmax() == i
        assert response[i, centre] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("count", [1, 7, 20])
def test_the_edges_cover_the_whole_band(count):
    edges = mel_edges(count, 16_000)
    assert len(edges) == count + 1 and edges[0] == 0 and edges[-1] == pytest.approx(8_000)
    assert (np.diff(edges) > 0).all() and (np.diff(edges, 2) >= -1e-9).all()  # wider towards the top


@pytest.mark.parametrize(("taps", "n"), [(1024, 3_000), (1024, 1_025), (600, 1_201)])
def test_long_filters_by_fft_equal_the_convolution(taps, n, monkeypatch):
    bank, x = Sinc(6, taps).eval(), noise(2, 1, 1, n)
    by_fft = bank(x)
    monkeypatch.setattr(sinc, "FFT_FROM_TAPS", 10_000)
    directly = bank(x)
    assert by_fft.shape == directly.shape == (2, 1, 6, n - taps)  # an even length becomes odd
    assert torch.allclose(by_fft, directly, atol=1e-5)


def test_the_gradient_through_the_fft_is_that_of_the_convolution(monkeypatch):
    bank = Sinc(3, 700).eval()
    gradients = []
    for limit in (1, 10_000):
        monkeypatch.setattr(sinc, "FFT_FROM_TAPS", limit)
        x = noise(1, 1, 1, 1_500).requires_grad_()
        (bank(x) * noise(1, 1, 3, 800, seed=1)).sum().backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, atol=1e-4) and float(gradients[0].abs().max()) > 0.1


@pytest.mark.parametrize("taps", [128, 1024])
def test_autocast_does_not_round_the_waveform(taps):
    bank, x = Sinc(6, taps).eval(), noise(1, 1, 1, 3_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = bank(x)
    assert inside.dtype == torch.float32 and torch.equal(inside, bank(x))


def test_the_mask_silences_one_run_of_filters_in_training_only():
    bank = Sinc(12, 33, filter_mask=6).train()
    widths = set()
    torch.manual_seed(0)
    for _ in range(60):
        silent = (bank(noise(1, 1, 1, 200)) == 0).all(dim=3)[0, 0]
        at = silent.nonzero()[:, 0]
        widths.add(len(at))
        assert len(at) == 0 or int(at[-1] - at[0]) == len(at) - 1
    assert widths == set(range(6))  # int(uniform(0, 6)) in the authors' code
    assert (bank.eval()(noise(1, 1, 1, 200)) != 0).any(dim=3).all()
    assert (Sinc(12, 33).train()(noise(1, 1, 1, 200)) != 0).any(dim=3).all()  # off by default


def test_the_filters_are_not_in_the_checkpoint_but_move_with_the_module():
    bank = Sinc(4, 33)
    assert not bank.state_dict() and not list(bank.parameters())
    assert bank.to(torch.float64).filters.dtype == torch.float64


@pytest.mark.parametrize("n", [1, 2, 7, 31, 1_025, 16_000, 64_600, 65_537])
def test_fft_lengths_are_the_smallest_smooth_ones(n):
    def smooth(m: int) -> bool:
        for p in (2, 3, 5):
            while m % p == 0:
                m //= p
        return m == 1

    assert fast_length(n) == next(m for m in range(n, 2 * n + 1) if smooth(m))


def test_the_tap_is_the_waveform():
    x = noise(3, 50)
    tap = Waveform()(x)
    assert tap.shape == (3, 1, 1, 50) and torch.equal(tap.flatten(1), x)
