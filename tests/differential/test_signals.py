"""What stands below the metrics, on random signals: STFT, truth, projection, top cells, changes of a recording and error
rates against scipy, librosa, numpy, scikit-learn and the literal twins. Sizes are odd, and differ from run to run with the
seed (`tests/seeds.py`).
"""

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from seeds import SEED
from sklearn import metrics as sk
from twins import asvspoof
from twins import truth as twin

from xaibench.grid import Grid
from xaibench.metrics.again import add_at, masked_noise, mu_law
from xaibench.metrics.detection import decisions, detection_error_tradeoff, equal_error_point
from xaibench.project import average, overlap, project
from xaibench.top import largest, share_count, top_mask
from xaibench.truth import DIFFERENCES, TruthSpec, smooth, top_share, truth
from xaibench.types import Attribution, Axis

every = pytest.mark.parametrize("number", range(8))


@pytest.fixture
def draw(number) -> np.random.Generator:
    return np.random.default_rng([SEED or 0, number])


def a_grid(draw: np.random.Generator) -> Grid:
    n_fft = 2 * int(draw.integers(16, 200))
    window = str(draw.choice(["hann", "hamming", "blackman"]))
    return Grid(int(draw.choice([8_000, 16_000, 22_050])), n_fft, int(draw.integers(8, n_fft // 2 + 1)), window)


@every
def test_the_stft_is_librosas_and_scipys(draw):
    grid = a_grid(draw)
    x = draw.standard_normal(int(draw.integers(grid.n_fft, 4_000)))
    ours = grid.stft(torch.from_numpy(x)[None])[0].numpy()
    theirs = librosa.stft(x, n_fft=grid.n_fft, hop_length=grid.hop, window=grid.window, center=True, pad_mode="reflect")
    assert ours.shape == grid.shape(len(x)) == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    window = scipy.signal.get_window(grid.window, grid.n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, grid.n_fft // 2, mode="reflect"), grid.n_fft)[:: grid.hop]
    np.testing.assert_allclose(ours, np.fft.rfft(frames * window).T, atol=1e-9)
    np.testing.assert_allclose(
        grid.frequency.edges[1:-1], (np.arange(1, grid.n_fft // 2 + 1) - 0.5) * grid.sample_rate / grid.n_fft
    )
    np.testing.assert_allclose(grid.band(0, grid.sample_rate / 2), True)
    bins = librosa.fft_frequencies(sr=grid.sample_rate, n_fft=grid.n_fft)
    low, high = np.sort(draw.choice(bins, 2, replace=False)) + bins[1] * draw.uniform(-0.4, 0.4)
    assert np.array_equal(grid.band(low, high), (bins >= low) & (bins <= high))
    times = librosa.frames_to_time(np.arange(ours.shape[1]), sr=grid.sample_rate, hop_length=grid.hop)
    np.testing.assert_allclose(grid.time(len(x)).edges[1:], times + grid.hop / grid.sample_rate / 2, rtol=1e-12)


@every
@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_truth_is_its_twin(name, draw):
    n_fft = 2 * int(draw.integers(16, 80))
    grid = Grid(n_fft=n_fft, hop=int(draw.integers(8, n_fft // 2 + 1)))
    bonafide = draw.standard_normal(int(draw.integers(600, 2_000)))
    spoof = bonafide + draw.choice([0.01, 1.0]) * draw.standard_normal(len(bonafide))
    low, high = 16_000 / n_fft * draw.integers(0, 3), 16_000 / n_fft * draw.integers(n_fft // 4, n_fft // 2)
    share = float(draw.uniform(0.02, 0.6))
    pair = torch.from_numpy(spoof)[None], torch.from_numpy(bonafide)[None]
    made = truth(*pair, grid=grid, band=(low, high), spec=TruthSpec(name, share=share))
    literal = {"eq1": twin.eq1, "eq2": twin.eq2, "log-difference": twin.log_difference}[name]
    wanted = literal(spoof, bonafide, grid.n_fft, grid.hop) * grid.band(low, high)[:, None]
    np.testing.assert_allclose(made.values[0].numpy(), wanted, rtol=1e-6, atol=1e-9)
    assert np.array_equal(made.region[0].numpy(), twin.top(wanted, made.valid.numpy(), share))


@every
def test_smoothing_is_scipys_at_any_size(draw):
    kernel = tuple(int(2 * k + 1) for k in draw.integers(0, 8, 2))
    variance = tuple(float(v) for v in draw.uniform(0.2, 9, 2))
    m = draw.random(tuple(draw.integers(1, 30, 2)))
    wanted = m
    for size, var, axis in zip(kernel, variance, (1, 0), strict=True):
        taps = np.exp(-0.5 * np.arange(-(size // 2), size // 2 + 1) ** 2 / var)
        wanted = scipy.ndimage.correlate1d(wanted, taps / taps.sum(), axis=axis, mode="reflect")
    ours = smooth(torch.from_numpy(m)[None], kernel=kernel, variance=variance)[0].numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-12)


def an_axis(draw: np.random.Generator, kind: str) -> Axis:
    inner = np.sort(draw.choice(np.arange(1, 400), int(draw.integers(0, 20)), replace=False)) / 40
    return Axis(kind, [0.0, *inner, 10.0])


@every
def test_projection_is_interpolation_of_the_mass_so_far(draw):
    source, target = ([an_axis(draw, kind) for kind in ("frequency", "time")] for _ in range(2))
    values = draw.standard_normal((2, len(source[0]), len(source[1])))
    wanted = values
    for dim, (old, new) in enumerate(zip(source, target, strict=True), start=1):
        so_far = np.insert(np.cumsum(wanted, dim), 0, 0, axis=dim)
        wanted = np.diff(
            np.apply_along_axis(lambda y, old=old, new=new: np.interp(new.edges, old.edges, y), dim, so_far), axis=dim
        )
    ours = project(Attribution(torch.from_numpy(values), *source), *target).values.numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-9)
    areas = [np.multiply.outer(*(np.diff(axis.edges) for axis in pair)) for pair in (source, target)]
    densities = average(torch.from_numpy(values / areas[0]), tuple(source), tuple(target)).numpy()
    np.testing.assert_allclose(densities, wanted / areas[1], atol=1e-9)
    assert overlap(source[0], target[0]).shape == (len(source[0]), len(target[0]))


@every
def test_the_top_cells_are_lexsorts(draw):
    shape = tuple(int(n) for n in draw.integers(2, 20, 2))
    values, valid = draw.integers(-4, 5, shape).astype(float), draw.random(shape) < 0.7
    valid.flat[:2] = True
    share = float(draw.uniform(1 / valid.sum(), 1))
    count = share_count(share, valid)
    order = np.lexsort((np.arange(values.size), -values.ravel(), ~valid.ravel()))
    wanted = np.zeros(values.size, bool)
    wanted[order[:count]] = True
    mask, tied = largest(values, valid, count)
    assert np.array_equal(mask, wanted.reshape(shape)) and np.array_equal(top_mask(values, share, valid), mask)
    assert tied == (values[valid & ~mask].max(initial=-np.inf) == values[mask].min())
    assert np.array_equal(top_share(torch.from_numpy(values)[None], torch.from_numpy(valid), share)[0].numpy(), mask)


@every
def test_changes_of_a_recording(draw, number):
    x = draw.uniform(-1.2, 1.2, (1, int(draw.integers(2_000, 5_000))))
    wave = torch.from_numpy(x)
    clipped = np.clip(x, -1, 1)
    back = librosa.mu_expand(librosa.mu_compress(clipped, mu=255, quantize=False), mu=255, quantize=False)
    np.testing.assert_allclose(back, clipped, atol=1e-9)
    levels = np.floor((librosa.mu_compress(clipped, mu=255, quantize=False) + 1) / 2 * 255 + 0.5) / 255 * 2 - 1
    np.testing.assert_allclose(mu_law(wave).numpy(), librosa.mu_expand(levels, mu=255, quantize=False), atol=1e-6)
    snr = float(draw.uniform(-5, 60))
    added = add_at(wave, torch.from_numpy(draw.standard_normal(x.shape)), snr).numpy() - x
    assert 10 * np.log10((x**2).sum() / (added**2).sum()) == pytest.approx(snr, abs=1e-6)
    grid = Grid(n_fft=256, hop=64)
    noise = torch.randn(grid.stft(wave).shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(number))
    drawn = librosa.stft(x[0], n_fft=256, hop_length=64) * noise[0].numpy()
    ours = masked_noise(wave, torch.Generator().manual_seed(number), grid)[0].numpy()
    theirs = librosa.istft(drawn, hop_length=64, length=len(x[0]))  # whose edges see fewer windows
    np.testing.assert_allclose(ours[256:-256], theirs[256:-256], atol=1e-5)


@every
def test_error_rates_are_scikit_learns_and_the_packages(draw):
    scale = draw.choice([1, 100])
    positive, negative = (np.round(draw.normal(m, 1, int(draw.integers(3, 90))) * scale) for m in (1, 0))
    labels, scores = np.r_[np.ones(len(positive)), np.zeros(len(negative))], np.r_[positive, negative]
    miss, alarm, thresholds = detection_error_tradeoff(positive, negative)
    ends = np.flatnonzero(np.r_[np.diff(thresholds) > 0, True])  # the last of every tie: where libraries look
    theirs = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(np.sort(alarm[ends]), theirs[0], atol=1e-12)
    np.testing.assert_allclose(np.sort(1 - miss[ends]), theirs[1], atol=1e-12)
    assert equal_error_point(positive, negative) == pytest.approx(asvspoof.equal_error_point([*positive], [*negative]))
    at = float(draw.choice(scores))
    made = decisions(positive, negative, threshold=at)
    called = scores > at
    p, r, f, _ = sk.precision_recall_fscore_support(labels, called, labels=[0, 1], zero_division=np.nan)
    ours = [made.precision, made.recall, made.f1, made.bonafide_precision, made.bonafide_recall, made.bonafide_f1]
    for mine, other in zip(ours, [p[0], r[0], f[0], p[1], r[1], f[1]], strict=True):
        assert mine == pytest.approx(other, nan_ok=True)
    assert made.accuracy == pytest.approx(sk.accuracy_score(labels, called))
    assert made.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, called))
